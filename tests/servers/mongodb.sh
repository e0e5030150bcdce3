# shellcheck shell=bash
# A MongoDB replica set for a run: a real mongod where one is on the PATH, else the project's own stand-in. No package
# registry has a mongod, so it can't be fetched as the other servers are.

# Prints what a URL comes from: given, mongod or stand-in.
mongodb_start() {
    local folder=$RUN/mongodb.server pid port
    mkdir -p "$folder/data"
    port=$(free_port)
    if command -v mongod >/dev/null && command -v mongosh >/dev/null; then
        (cd "$folder" && exec setsid mongod --port "$port" --bind_ip 127.0.0.1 --replSet rs0 --dbpath data) \
            </dev/null >"$folder/log" 2>&1 &
        pid=$!
        echo mongod >"$folder/what"
    else
        local program
        program=$(mongodb_stand_in) || return 1
        # As long an oplog as the benchmarks read at once.
        (cd "$folder" && exec setsid "$program" --port "$port" --dir data --oplog 4000000) </dev/null >"$folder/log" 2>&1 &
        disown
        pid=$!
        echo stand-in >"$folder/what"
    fi
    echo "$pid $(started_at "$pid" || true)" >"$folder/pid"
    echo "mongodb://127.0.0.1:$port/?replicaSet=rs0" >"$folder/url"
    await 60 'MongoDB to answer' mongodb_answers "$folder" "$port"
}

mongodb_answers() {
    case $(<"$1/what") in
        stand-in) grep -q '^ready ' "$1/log" ;;
        mongod)
            # Made once; a set that is there already refuses it.
            mongosh --quiet --port "$2" --eval 'try { rs.initiate() } catch (e) {}; db.hello().isWritablePrimary' 2>/dev/null |
                grep -q true
            ;;
    esac
}

# The newest that was built.
mongodb_stand_in() {
    local program newest='' target=${CARGO_TARGET_DIR:-$CACHE/target}
    for program in "${SYNC_WORKER_MONGODB_STAND_IN:-}" "$target"/{release,debug}/mongodb-stand-in; do
        if [[ -x $program && (-z $newest || $program -nt $newest) ]]; then newest=$program; fi
    done
    [[ -n $newest ]] || { say 'the stand-in for MongoDB is not built: cargo build -p sync-worker-mongodb-stand-in'; return 1; }
    echo "$newest"
}

mongodb_down() {
    local pid started
    [[ -f $RUN/mongodb.server/pid ]] || return 0
    read -r pid started <"$RUN/mongodb.server/pid"
    if same_process "$pid" "$started"; then kill -9 "$pid" 2>/dev/null || true; fi
}

run_mongodb() {
    [[ -n ${SYNC_WORKER_TEST_MONGODB:-} ]] || mongodb_start
}

# To be called where the variables are to stay.
mongodb_export() {
    if [[ -n ${SYNC_WORKER_TEST_MONGODB:-} ]]; then
        export SYNC_WORKER_TEST_MONGODB_IS=${SYNC_WORKER_TEST_MONGODB_IS:-given}
    elif [[ -f $RUN/mongodb.server/url ]]; then
        SYNC_WORKER_TEST_MONGODB=$(<"$RUN/mongodb.server/url")
        SYNC_WORKER_TEST_MONGODB_IS=$(<"$RUN/mongodb.server/what")
        export SYNC_WORKER_TEST_MONGODB SYNC_WORKER_TEST_MONGODB_IS
    fi
}
