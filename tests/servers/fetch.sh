# shellcheck shell=bash
# Brings the servers' programs into the cache without installing anything: apt resolves and downloads Debian packages
# with a state of its own, tar unpacks them into one tree per suite, and patchelf ties each program to the C library of
# its tree, so that the machine's own release does not matter. Sourced by `servers`.

# PostgreSQL 17 comes from the stable suite. MySQL is packaged only in unstable, whose libraries must not mix with the
# stable ones: hence two trees.
readonly POSTGRES_SUITE=trixie MYSQL_SUITE=sid
readonly POSTGRES_PACKAGES='postgresql-17 postgresql-client-17' MYSQL_PACKAGES='mysql-server-core mysql-client-core'

# Any change of what a fetch makes must change this line; a cache with another stamp is built anew.
readonly STAMP="1 $POSTGRES_SUITE $POSTGRES_PACKAGES $MYSQL_SUITE $MYSQL_PACKAGES"

# Pulled in by dependencies but used neither by the servers nor by the clients: LLVM serves only jit, which is off.
readonly UNUSED='^lib(c-bin|c-l10n|c-gconv.*|llvm.*|z3.*|perl.*|pam-modules.*|pam-runtime|python3.*|db5.*|gdbm.*|sem.*|.*-perl)$'

fetched() { [[ -f $PROGRAMS/stamp && $(<"$PROGRAMS/stamp") == "$STAMP" ]]; }

fetch() {
    if fetched; then return; fi
    mkdir -p "$CACHE" && chmod 755 "$CACHE"
    exec {lock}>"$CACHE/servers.lock"
    flock "$lock"
    if ! fetched; then
        say "fetching PostgreSQL and MySQL into $PROGRAMS"
        local began=$SECONDS
        rm -rf "$PROGRAMS" && mkdir -p "$PROGRAMS/log"
        chmod 755 "$PROGRAMS"
        both fetch_postgres fetch_mysql || die "fetching failed; logs are in $PROGRAMS/log"
        rm -rf "$PROGRAMS/apt"
        printf '%s\n' "$STAMP" >"$PROGRAMS/stamp"
        say "fetched in $((SECONDS - began)) s"
    fi
    exec {lock}>&-
}

# Runs two functions side by side; fails if either fails.
both() {
    local first second failed=0
    "$1" & first=$!
    "$2" & second=$!
    wait "$first" || failed=1
    wait "$second" || failed=1
    return "$failed"
}

fetch_postgres() {
    # shellcheck disable=SC2086 # a list of packages
    logged postgres tree "$POSTGRES_SUITE" $POSTGRES_PACKAGES && logged postgres template postgres
}

fetch_mysql() {
    # shellcheck disable=SC2086
    logged mysql tree "$MYSQL_SUITE" $MYSQL_PACKAGES && logged mysql template mysql
}

# `set -e` has no effect inside a condition, so the work runs in a shell of its own.
logged() {
    local log=$PROGRAMS/log/$1.log
    shift
    ( set -e; "$@" ) >>"$log" 2>&1 &
    wait $! || { say "$* failed:"; tail -n 20 "$log" >&2; return 1; }
}

# The Debian mirror that this machine already uses, whichever way its sources are written.
mirror() {
    local release
    release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-stable}")
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$release" '
            $2 != "main" || $1 ~ /security/ { next }
            index($1, release) == 1 && !exact { exact = $3 }
            !any { any = $3 }
            END { print exact ? exact : any }'
}

# Writes the private apt state of one suite.
apt_state() {
    local suite=$1 apt=$2 uri keyring='' candidate
    uri=$(mirror)
    [[ -n $uri ]] || { echo 'no Debian mirror in /etc/apt'; return 1; }
    for candidate in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [[ ! -f $candidate ]] || keyring="[signed-by=$candidate] "
    done
    mkdir -p "$apt"/{parts,lists/partial,archives/partial,packages}
    : >"$apt/status"
    echo "deb $keyring$uri $suite main" >"$apt/sources.list"
    # The machine's settings apply (proxies, certificates), except those that act on the machine's own package cache
    # or fetch further indexes.
    for candidate in /etc/apt/apt.conf.d/*; do
        grep -qE 'Invoke|Dir::|IndexTargets' "$candidate" || ln -sf "$candidate" "$apt/parts/"
    done
    cat >"$apt/apt.conf" <<END
Dir::State "$apt"; Dir::State::status "$apt/status"; Dir::Cache "$apt";
Dir::Etc::parts "$apt/parts"; Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false"; APT::Sandbox::User "$(id -un)";
Acquire::Languages "none"; Acquire::GzipIndexes "false"; Acquire::Retries "3";
END
}

# tree SUITE PACKAGE...: unpacks the packages and the libraries that they depend on.
tree() {
    local suite=$1 root=$PROGRAMS/$1 apt=$PROGRAMS/apt/$1
    shift
    apt_state "$suite" "$apt"
    export APT_CONFIG=$apt/apt.conf
    apt-get -qq update

    # With an empty package status the simulated installation lists the whole closure.
    local -a closure packages=() half
    mapfile -t closure < <(apt-get -qq -s install "$@" patchelf | awk '$1 == "Inst" { print $2 }' | sort -u)
    local package
    for package in "${closure[@]}"; do
        if [[ " $* patchelf " == *" $package "* || $package == mysql-*-core* ]] ||
            [[ $package =~ ^(lib|zlib) && ! $package =~ $UNUSED ]]; then packages+=("$package"); fi
    done
    echo "${#packages[@]} packages: ${packages[*]}"
    (
        cd "$apt/packages"
        half=$((${#packages[@]} / 2))
        apt-get -qq download "${packages[@]:0:half}" &
        apt-get -qq download "${packages[@]:half}"
        wait $!
    )

    mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
    local folder
    for folder in bin sbin lib lib64; do ln -sfn "usr/$folder" "$root/$folder"; done
    for package in "$apt"/packages/*.deb; do unpack "$package" "$root"; done
    chmod -R u=rwX,go=rX "$root"
    bind_programs "$root"
}

unpack() {
    local package=$1 root=$2 name
    local -a leave=(./usr/share/{doc,man,info,locale,lintian,bug} ./usr/lib/debug ./etc ./var)
    name=$(basename "$package")
    # A library's helper programs would stand in the tree's bin folder for nothing.
    case $name in lib* | zlib*) leave+=(./usr/bin ./usr/sbin) ;; mysql-*) leave+=('./usr/bin/mysqltest*' ./usr/bin/mysqlxtest) ;; esac
    dpkg-deb --fsys-tarfile "$package" |
        tar -x -C "$root" --keep-directory-symlink --no-same-owner "${leave[@]/#/--exclude=}"
}

# Gives every program its tree's loader and libraries. An RPATH (not RUNPATH) also covers what plugins load.
bind_programs() {
    local root=$1 libraries loader program
    libraries=$(echo "$root"/usr/lib/*-linux-gnu*)
    loader=$(echo "$libraries"/ld-linux-*.so.*)
    # patchelf itself runs through the loader: the machine's C library may be older than the tree's.
    cp "$root/usr/bin/patchelf" "$PROGRAMS/apt/patchelf-$(basename "$root")"
    local -a patchelf=("$loader" --library-path "$libraries" "$PROGRAMS/apt/patchelf-$(basename "$root")")
    rm "$root/usr/bin/patchelf"
    while read -r program; do
        "${patchelf[@]}" --print-interpreter "$program" >/dev/null 2>&1 || continue
        "${patchelf[@]}" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$program"
    done < <(find "$root"/usr/{bin,sbin,lib} -type f -perm -100 -size +4k ! -name '*.so*')
}

# template KIND: initialises one data directory and keeps it as an archive, which any user may unpack for an instance.
template() {
    local kind=$1 folder
    folder=$(mktemp -d "$(roomy)/sync-worker-template.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$folder'" EXIT
    give "$folder"
    "${kind}_initialise" "$folder"
    tar -C "$folder/data" --sparse -cf "$PROGRAMS/$kind.tar.part" .
    chmod 644 "$PROGRAMS/$kind.tar.part"
    mv "$PROGRAMS/$kind.tar.part" "$PROGRAMS/$kind.tar"
}
