package ucx

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Report is what UCX says an endpoint uses.
type Report struct {
	Lanes []string // one line a UCX lane: transport/device and what it serves
	// Devices are the network devices and memory paths of the lanes.
	Devices []string
	// Protocol holds UCX's own words: "lanes", and by operation ("read",
	// "write", "send") its protocols over message sizes. Older versions know
	// them once the endpoint exists, 1.16 and later once they were used.
	Protocol map[string]string
	// Emulated lists the operations ("read", "write") whose RMA UCX makes of
	// messages, which the target's CPU answers.
	Emulated []string
}

var (
	laneLine = regexp.MustCompile(`^lane\[\d+\]: +\d+:(\S+)/(\S+?)(?:\.\d+)? md\[\d+\] +-> md\[(\d+)\]`)
	rmaLine  = regexp.MustCompile(`^(put|get)\[(\d+)\]: (.*)$`)
	sendLine = regexp.MustCompile(`^tag_send: (.*)$`)
	// A protocol table, UCX 1.15 and later, says whose it is and what of: in one
	// row "| name intra-node cfg#0 | remote memory read by ucp_get*(multi) into
	// host memory from host |", or from 1.21 on in two.
	tableOwner = regexp.MustCompile(`^\| *(\S+) (?:\w+-node|self) cfg#\d+`)
	tableOf    = regexp.MustCompile(` by ucp_(get|put|tag_send)\w*\*?(?:\(([^)]*)\))? `)
	tableTitle = regexp.MustCompile(`^\| *Range *\| *Description *\|`)
)

// opOf is the operation's word on the command line.
var opOf = map[string]string{"get": "read", "put": "write", "tag_send": "send"}

// variantOf is how transfers post: UCX keeps a table for each way.
var variantOf = map[string]string{"read": "multi", "write": "multi", "send": ""}

// ParseReport reads the output of ucp_ep_print_info. key is the packed remote
// key, whose head tells which of the peer's memory domains the memory is
// registered with: an operation over a lane without such a key is emulated.
func ParseReport(text string, key []byte) Report {
	r := Report{Protocol: map[string]string{}}
	remoteMD := map[string]uint64{} // lane -> memory domain of the peer
	direct := map[string]bool{}
	var tables []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		if m := laneLine.FindStringSubmatch(line); m != nil {
			r.Lanes = append(r.Lanes, strings.Join(strings.Fields(line), " "))
			md, err := strconv.ParseUint(m[3], 10, 6)
			if err == nil {
				remoteMD[strconv.Itoa(len(r.Lanes)-1)] = md
			}
			if d := m[1] + "/" + m[2]; !slices.Contains(r.Devices, d) {
				r.Devices = append(r.Devices, d)
			}
		} else if m := rmaLine.FindStringSubmatch(line); m != nil {
			if md, ok := remoteMD[m[2]]; ok && registeredWith(key, md) {
				direct[m[1]] = true
				r.Protocol[opOf[m[1]]] = join(r.Protocol[opOf[m[1]]], "lane["+m[2]+"] "+m[3])
			}
		} else if m := sendLine.FindStringSubmatch(line); m != nil {
			r.Protocol["send"] = m[1]
		} else if strings.HasPrefix(line, "|") {
			tables = append(tables, line)
		}
	}
	if len(r.Lanes) == 0 {
		return r
	}
	r.Protocol["lanes"] = strings.Join(r.Lanes, "; ")
	if len(tables) > 0 {
		r.readTables(tables)
		return r
	}
	if strings.Contains(text, "..<") { // the older report names what it can do
		for _, op := range []string{"get", "put"} {
			if !direct[op] {
				r.Protocol[opOf[op]] = "software emulation over active messages"
				r.Emulated = append(r.Emulated, opOf[op])
			}
		}
	}
	return r
}

// tablesOf picks the tables of one context out of UCX's log file: the lines
// from the one that names it to the one that names another.
func tablesOf(log, context string) string {
	var out strings.Builder
	ours := false
	for line := range strings.Lines(log) {
		i := strings.IndexAny(line, "|+")
		if i < 0 {
			continue
		}
		if line = line[i:]; line[0] == '+' {
			continue
		}
		if m := tableOwner.FindStringSubmatch(line); m != nil {
			ours = m[1] == context
		}
		if ours {
			out.WriteString(line)
		}
	}
	return out.String()
}

// registeredWith reads the map of memory domains at the head of a packed key
// (ucp_rkey_pack: 64 bits in the packer's byte order).
func registeredWith(key []byte, md uint64) bool {
	return len(key) >= 8 && binary.NativeEndian.Uint64(key)&(1<<md) != 0
}

// readTables takes the rows below each heading of an operation as transfers post
// it. Lanes with the same table say it once.
func (r *Report) readTables(lines []string) {
	op := ""
	rows := map[string][]string{}
	for _, line := range lines {
		if tableTitle.MatchString(line) {
			continue
		}
		if m := tableOf.FindStringSubmatch(line); m != nil {
			if op = opOf[m[1]]; variantOf[op] != m[2] {
				op = ""
			}
			continue
		}
		if tableOwner.MatchString(line) || strings.Contains(line, " by ucp_") {
			op = "" // of something that transfers do not use
			continue
		}
		row := strings.Join(strings.Fields(strings.ReplaceAll(line, "|", " ")), " ")
		if op == "" || slices.Contains(rows[op], row) {
			continue
		}
		rows[op] = append(rows[op], row)
		if strings.Contains(row, "software emulation") && !slices.Contains(r.Emulated, op) {
			r.Emulated = append(r.Emulated, op)
		}
	}
	for op, r1 := range rows {
		r.Protocol[op] = strings.Join(r1, "; ")
	}
	slices.Sort(r.Emulated)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
