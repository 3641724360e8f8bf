package remote

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// guardScript runs a command in a session of its own, and ends its whole group
// when standard input ends, whatever ended that: SIGTERM, the grace period,
// SIGKILL. What the command leaves when it ends by itself goes the same way. It
// is the same on this host and over ssh, so that nothing is left when this
// process dies or the connection is lost. Its exit code is the command's; 137
// also tells that something of the group had to be killed.
//
// $1 is the grace period and $2 that of what the command leaves, in tenths of a
// second. $3 is how many bytes of standard input the command reads, and $4 the
// size of a binary that follows them, which is then the command. The rest is
// the command.
//
// It stands on one line, so that login shells other than POSIX's take it, too.
var guardScript = strings.Join(strings.Fields(`
grace=$1; after=$2; n=$3; size=$4; shift 4;
word=; if [ $n -gt 0 ]; then word=$(dd bs=1 count=$n 2>/dev/null); fi;
if [ $size -gt 0 ]; then `+receiver+` set -- /proc/self/fd/4 "$@"; fi;
exec 3<&0;
if [ $n -gt 0 ]; then printf "%s\n" "$word" | setsid sh -c "exec \"\$@\"" sh "$@" 3<&- & else setsid sh -c "exec \"\$@\"" sh "$@" </dev/null 3<&- & fi;
pid=$!;
left() { kill -0 -$pid 2>/dev/null && sed -n "s/.*) \([A-Za-z]\) [0-9]* $pid .*/\1/p" /proc/[0-9]*/stat 2>/dev/null | grep -qv "^[ZX]"; };
end() { kill -TERM -$pid; i=0; while kill -0 $pid && [ $i -lt $grace ]; do sleep 0.1; i=$((i + 1)); done; kill -0 $pid && kill -KILL -$pid; };
{ cat; end; } <&3 >/dev/null 2>&1 3<&- &
watch=$!;
trap "end >/dev/null 2>&1 &" HUP INT TERM;
while wait $pid; code=$?; [ $code -gt 128 ] && kill -0 $pid 2>/dev/null; do :; done;
kill -TERM -$pid 2>/dev/null;
i=0; while left && [ $i -lt $after ]; do sleep 0.1; i=$((i + 1)); done;
if left; then kill -KILL -$pid 2>/dev/null; code=137; fi;
kill $watch 2>/dev/null;
exit $code
`), " ")

// receiver takes a binary from standard input and opens it as descriptor 4. The
// file has lost its name before it runs, so that nothing has to remove it,
// whatever ends the session. A session that ends on the way leaves nothing
// either.
var receiver = `
m=$(uname -m); if [ "$m" != ` + machines[runtime.GOARCH] + ` ]; then echo "this host is $m, the binary is for ` + machines[runtime.GOARCH] + `" >&2; exit 126; fi;
umask 077;
f=$(mktemp "${TMPDIR:-/tmp}/xferbench.XXXXXX") || exit 126;
clean() { rm -f "$f"; }; trap clean EXIT; trap "exit 129" HUP INT TERM;
head -c $size >"$f" || exit 126;
if [ $(wc -c <"$f") -ne $size ]; then echo "the binary did not arrive whole" >&2; exit 126; fi;
chmod 700 "$f"; exec 4<"$f"; clean; trap - EXIT HUP INT TERM;`

// machines are uname's words for this binary's.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// afterwards is how long what a command leaves behind may take to end.
const afterwards = 5 * time.Second

// guarded are the words of a shell that runs argv under the guard. stdin is how
// many bytes argv reads, binary the size of the binary that replaces argv[0], or
// 0.
func guarded(grace time.Duration, stdin int, binary int64, argv []string) []string {
	tenths := func(d time.Duration) string {
		return strconv.FormatInt(int64((d+99*time.Millisecond)/(100*time.Millisecond)), 10)
	}
	if binary > 0 {
		argv = argv[1:]
	}
	return append([]string{"sh", "-c", guardScript, "xferbench", tenths(grace), tenths(min(grace, afterwards)), strconv.Itoa(stdin), fmt.Sprint(binary)}, argv...)
}
