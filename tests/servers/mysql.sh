# shellcheck shell=bash
# What is particular to MySQL. Sourced by `servers`; postgres.sh defines the same functions for PostgreSQL.

mysql_bin() { echo "$PROGRAMS/$MYSQL_SUITE/usr/bin"; }

mysql_program() { echo "$PROGRAMS/$MYSQL_SUITE/usr/sbin/mysqld"; }

mysql_url() { echo "mysql://root@127.0.0.1:$1/"; }

# Durability is off only while the template is made. Without `auto.cnf` every instance makes a server UUID of its own.
# The keys for TLS and for the exchange of passwords come with the template: making them takes longer than a start.
mysql_initialise() {
    as_server "$(mysql_program)" --no-defaults --basedir="$PROGRAMS/$MYSQL_SUITE/usr" --datadir="$1/data" \
        --initialize-insecure --innodb-redo-log-capacity=64M --innodb-doublewrite=OFF \
        --innodb-flush-log-at-trx-commit=0 --innodb-use-native-aio=OFF
    rm -f "$1/data/auto.cnf"
}

mysql_configure() {
    local instance=$1 port=$2 setting value
    shift 2
    {
        cat <<END
[mysqld]
basedir = $PROGRAMS/$MYSQL_SUITE/usr
plugin-dir = $PROGRAMS/$MYSQL_SUITE/usr/lib/mysql/plugin
datadir = $instance/data
tmpdir = $instance
socket = $instance/mysql.sock
pid-file = $instance/data/mysqld.pid
bind-address = 127.0.0.1
port = $port
server-id = $port
mysqlx = OFF
secure-file-priv = NULL
character-set-server = utf8mb4
max-connections = 200
log-bin = binlog
binlog-row-image = FULL
binlog-row-metadata = FULL
gtid-mode = ON
enforce-gtid-consistency = ON
innodb-redo-log-capacity = 64M
# Asynchronous I/O has a limit for the whole machine and does not exist on tmpfs.
innodb-use-native-aio = OFF
# Half of the server's memory, for statistics that no test reads.
performance-schema = OFF
END
        # Later lines win. A name alone is allowed: some options, like skip-log-bin, take no value.
        for setting in "$@"; do
            value=${setting#*=}
            if [[ $setting == *=* ]]; then echo "${setting%%=*} = \"${value//\\/\\\\}\""; else echo "$setting"; fi
        done
    } >"$instance/settings.conf"
}

mysql_command() { COMMAND=("$(mysql_program)" --defaults-file="$1/settings.conf"); }

# The server writes its pid once its port is bound; the first byte of its greeting says that it takes connections.
mysql_answers() {
    local instance=$1 port=$2 pid=$3 byte=''
    [[ $(cat "$instance/data/mysqld.pid" 2>/dev/null) == "$pid" ]] || return 1
    { exec {greeting}<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
    LC_ALL=C IFS= read -r -t 2 -N 1 -u "$greeting" byte || true
    exec {greeting}>&-
    [[ -n $byte ]]
}

mysql_stop_signal() { echo TERM; }

# The lock beside the socket names the killed server; its zombie, not yet reaped by init, would pass for a living one.
mysql_forget() { rm -f "$1"/mysql.sock*; }
