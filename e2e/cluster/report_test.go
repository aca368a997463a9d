package cluster

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gorilla/websocket"
)

// report is the table at the end of a run.
func report(phases []*phase) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d clients at %d nodes, each at its own of %d NATS servers; %d CPUs, %s/%s, %s%s; all on loopback, clients and NATS in one process\n"+
		"due, came, lost: each message once for every client that it was for. Lost are those that may be, see docs/reliability.md\n\n",
		*flagClients, nodes, nodes, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), raced())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "phase\ttook\tsent\tlocal only\tdue\tcame\tLOST\tLOST ASIDE\trecovered\tthen due\tthen came\t")
	for _, p := range phases {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t%d\t\n", p.name, p.took.Round(100*time.Millisecond), p.load.sent, p.load.localOnly,
			p.load.due, p.load.came, p.load.lost, p.load.lostAside, short(p.recovered), p.quiet.due, p.quiet.came)
	}
	_ = w.Flush() // into memory
	b.WriteByte('\n')
	for _, p := range phases {
		for _, note := range p.notes {
			fmt.Fprintf(&b, "%s: %s\n", p.name, note)
		}
		for _, how := range slices.Sorted(maps.Keys(p.ends)) {
			fmt.Fprintf(&b, "%s: %d connections ended: %s\n", p.name, p.ends[how], how)
		}
	}
	return b.String()
}

// writeReport writes the report to the file that the flag names.
func writeReport(text string) error {
	if *flagReport == "" {
		return nil
	}
	return os.WriteFile(*flagReport, []byte(text), 0o600)
}

func short(d time.Duration) string { return d.Round(time.Millisecond).String() }

func (p *phase) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// ending puts the end of a connection into few words, so that they can be counted.
func ending(err error) string {
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok && closed.Code != websocket.CloseAbnormalClosure {
		return fmt.Sprintf("%d %s", closed.Code, closed.Text)
	}
	return "without a close frame"
}
