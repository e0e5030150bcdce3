# shellcheck shell=bash
# What is particular to PostgreSQL. Sourced by `servers`; mysql.sh defines the same functions for MySQL.

postgres_bin() { echo "$PROGRAMS/$POSTGRES_SUITE/usr/lib/postgresql/17/bin"; }

postgres_program() { echo "$(postgres_bin)/postgres"; }

postgres_url() { echo "postgres://postgres@127.0.0.1:$1/postgres"; }

postgres_initialise() {
    as_server "$(postgres_bin)/initdb" -D "$1/data" -U postgres --auth=trust --encoding=UTF8 --locale=C \
        --locale-provider=builtin --builtin-locale=C.UTF-8 --no-sync --no-instructions
    # Superuser without password for convenience, all others with one: a test of a wrong password must be refused by
    # the server itself.
    cat >"$1/data/pg_hba.conf" <<'END'
local all         all                   trust
host  all         postgres 127.0.0.1/32 trust
host  replication postgres 127.0.0.1/32 trust
host  all         all      127.0.0.1/32 scram-sha-256
host  replication all      127.0.0.1/32 scram-sha-256
END
    # Shared memory goes to files in the data directory: segments in /dev/shm would outlive a killed server.
    cat >>"$1/data/postgresql.conf" <<'END'
listen_addresses = '127.0.0.1'
dynamic_shared_memory_type = mmap
wal_level = logical
max_wal_senders = 50
max_replication_slots = 50
max_connections = 200
logical_decoding_work_mem = 64MB
jit = off
log_line_prefix = '%m [%p] %q%u@%d '
include_if_exists = '../settings.conf'
END
}

# A copy of the server at a port, which goes on with that one's log through a slot of the copy's name.
postgres_copy() {
    as_server "$(postgres_bin)/pg_basebackup" -D "$1/data" -d "host=127.0.0.1 port=$2 user=postgres dbname=postgres" \
        --checkpoint=fast --no-sync --write-recovery-conf --create-slot --slot="${3//[^a-z0-9_]/_}" >&2
}

# Settings stand in a file, not on the command line, so that ALTER SYSTEM and a reload can still change them.
postgres_configure() {
    local instance=$1 port=$2 setting value quote="'"
    shift 2
    {
        echo "port = $port"
        echo "unix_socket_directories = '$instance'"
        for setting in "$@"; do
            [[ $setting == *=* ]] || die "PostgreSQL settings have the form KEY=VALUE, not '$setting'"
            value=${setting#*=} value=${value//\\/\\\\}
            echo "${setting%%=*} = '${value//$quote/$quote$quote}'"
        done
    } >"$instance/settings.conf"
}

postgres_command() { COMMAND=("$(postgres_program)" -D "$1/data"); }

# The postmaster writes its state into the last line of its pid file; a file of an earlier life has another pid.
postgres_answers() {
    local -a lines=()
    mapfile -t lines 2>/dev/null <"$1/data/postmaster.pid" || return 1
    [[ ${lines[0]:-} == "$3" && (${lines[7]:-} == ready* || ${lines[7]:-} == standby*) ]]
}

# Fast shutdown: disconnects clients instead of waiting for them.
postgres_stop_signal() { echo INT; }

# A killed postmaster leaves behind its pid file and a small System V segment, by which the next one notices survivors.
# That there are none is known here, whereas the next one would take a zombie that init has not yet reaped for one.
postgres_forget() {
    local -a lines=()
    mapfile -t lines 2>/dev/null <"$1/data/postmaster.pid" || return 0
    local segment=${lines[6]:-}
    segment=${segment##* }
    # The segment is removed only if nobody is attached and this very postmaster made it.
    if awk -v id="$segment" -v pid="${lines[0]}" '$2 == id && $5 == pid && $7 == 0 { found = 1 } END { exit !found }' \
        /proc/sysvipc/shm 2>/dev/null; then ipcrm -m "$segment" || true; fi
    rm -f "$1/data/postmaster.pid" "$1"/.s.PGSQL.*
}
