#!/bin/sh
# What containerd runs as the OCI runtime of the handler `runsc`: gVisor's runsc, found in PATH like every other program of
# the cluster, made to look to runc's shim as runc does. Its own shim does not start without CAP_SYS_RESOURCE.

# The command is the first of these words that no flag takes, the container the first plain word after it.
command='' id='' root='' bundle='' pid_file='' previous=''
for word; do
    case $previous in
    --root) root=$word ;;
    --bundle) bundle=$word ;;
    --pid-file) pid_file=$word ;;
    --log | --log-format | --console-socket) ;;
    *)
        case $command,$word in
        ,create | ,start | ,kill | ,delete) command=$word ;;
        ,* | *,-*) ;;
        *) id=${id:-$word} ;;
        esac
        ;;
    esac
    previous=$word
done

# There is no KVM.
set -- --platform=systrap "$@"

# The shim gives a container's input and output to `create`, as runc wants them, and takes the end of the process that `create`
# names for the container's. Of all containers but a pod's first, gVisor wants the former at `start` and names the sandbox, which
# lives on. So such a container gets a keeper: a process that holds its input and output, waits until it is started, and ends as it
# does. The first container is the sandbox itself, and silent.
keeper=/run/runsc-$id
tell() {
    # Open for reading too, so that nobody is waited for: the keeper may be gone.
    [ ! -p "$keeper.door" ] || echo "$1" 1<>"$keeper.door"
}

case $command in
create)
    runsc "$@" || exit
    grep -q '"io.kubernetes.cri.container-type":"container"' "$bundle/config.json" || exit 0
    mkfifo -m 600 "$keeper.door" && exec 3<>"$keeper.door" 4<&0 || exit
    (
        read -r news <&3
        rm -f "$keeper.door" "$keeper.pid"
        [ "$news" = started ] || exit 137
        status=$(runsc --root "$root" wait "$id" 2>/dev/null | sed -n 's/.*"exitStatus":\([0-9]*\).*/\1/p')
        # Without an answer the sandbox was killed.
        exit "${status:-137}"
    ) <&4 &
    printf %s $! | tee "$keeper.pid" >"$pid_file"
    ;;
start)
    # Errors are in the log that the shim names. Its own pipes would stay open, and it waits for their end.
    held=/dev/null
    [ ! -s "$keeper.pid" ] || held=/proc/$(cat "$keeper.pid")/fd
    if [ -d "$held" ]; then
        runsc "$@" <"$held/0" >"$held/1" 2>"$held/2"
    else
        runsc "$@" </dev/null >/dev/null 2>&1
    fi || exit
    tell started
    ;;
kill | delete)
    said=$(runsc "$@" 2>&1)
    status=$?
    # The words by which the shim knows that there is nothing left to kill.
    case $said in *' not running'* | *' not started'*) said="$said: container not running" ;; esac
    echo "$said" >&2
    # To one that was never started.
    tell ended
    exit "$status"
    ;;
*) exec runsc "$@" ;;
esac
