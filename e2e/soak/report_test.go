package soak

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// column is a group of clients and the server that they were connected to. Groups of one
// server share its samples.
type column struct {
	name string
	book *ledger
	samples
}

// report is the table at the end of a run.
func report(columns []column, notes ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d clients over HTTP/1.1, %d over HTTP/2 and HTTP/3 each, and %d that stop reading; %d CPUs, %s/%s, %s; all on loopback, clients and backend in one process\n"+
		"\"in process\" and \"proxied\" over HTTP/1.1, HTTP/2 and HTTP/3 are clients of one server: its memory and reloads are in all these columns\n\n",
		*flagClients, *flagStreams, *flagSlow, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name string, value func(column) string) {
		fmt.Fprint(w, name)
		for _, c := range columns {
			fmt.Fprint(w, "\t", value(c))
		}
		fmt.Fprintln(w)
	}
	number := func(name string, value func(column) int64) {
		row(name, func(c column) string { return fmt.Sprint(value(c)) })
	}
	row("", func(c column) string { return c.name })
	row("reloads (and refused ones)", func(c column) string { return fmt.Sprintf("%d (+%d)", c.reloads.done, c.reloads.refused) })
	row("in", func(c column) string { return c.reloads.took.Round(time.Second).String() })
	row("a reload took, mean / worst", func(c column) string {
		if c.reloads.total == 0 || c.reloads.done == 0 {
			return "-"
		}
		return fmt.Sprintf("%s / %s", short(c.reloads.total/time.Duration(c.reloads.done)), short(c.reloads.worst))
	})
	number("SOCKETS DROPPED", func(c column) int64 { return c.book.dropped.Load() })
	number("sockets opened", func(c column) int64 { return c.book.opened.Load() })
	number("  closed by the client, 1000", func(c column) int64 { return c.book.bye.Load() })
	number("  reset by the client", func(c column) int64 { return c.book.aborted.Load() })
	number("  1011 after a panic", func(c column) int64 { return c.book.failed.Load() })
	row("  open from first to last reload", func(c column) string {
		return fmt.Sprintf("%d of %d", c.book.stayed.Load(), c.book.stayers.Load())
	})
	number("handshakes tried again", func(c column) int64 {
		_, _, retries := c.book.tallies()
		return int64(retries)
	})
	number("MESSAGES LOST", func(c column) int64 { return c.book.lost.Load() })
	number("MESSAGES OUT OF ORDER", func(c column) int64 { return c.book.wrong.Load() })
	number("messages sent", func(c column) int64 { return c.book.sent.Load() })
	number("  answered in order", func(c column) int64 { return c.book.answered.Load() })
	number("  abandoned by a client's reset", func(c column) int64 { return c.book.abandoned.Load() })
	row("answer after, median / 99 %", func(c column) string {
		return fmt.Sprintf("%s / %s", short(c.book.latencies.quantile(0.5)), short(c.book.latencies.quantile(0.99)))
	})
	row("WORST ANSWER", func(c column) string { return short(time.Duration(c.book.latencies.worst.Load())) })
	row("goroutines: start, end", func(c column) string {
		if c.before.goroutines == 0 {
			return "-"
		}
		return fmt.Sprintf("%d, %d", c.before.goroutines, c.gone.goroutines)
	})
	row("heap: start, end", func(c column) string { return two(c.before.heap, c.gone.heap) })
	row("heap, all connected: before, after reloads", func(c column) string { return two(c.full.heap, c.after.heap) })
	row("memory (PSS): start, end", func(c column) string { return two(c.before.pss, c.gone.pss) })
	row("memory, all connected: before, after reloads", func(c column) string { return two(c.full.pss, c.after.pss) })
	row("connections after the last reload", func(c column) string { return fmt.Sprint(c.at) })
	row("processes: old ones, all", func(c column) string { return fmt.Sprintf("%d, %d", c.after.old, c.after.processes) })
	row("old servers: HTTP/2, HTTP/3; at the end", func(c column) string {
		return fmt.Sprintf("%d, %d; %d, %d", c.after.oldH2, c.after.oldH3, c.gone.oldH2, c.gone.oldH3)
	})
	_ = w.Flush() // into memory
	b.WriteByte('\n')
	for _, c := range columns {
		why, retried, _ := c.book.tallies()
		if why != "" {
			fmt.Fprintf(&b, "%s: dropped: %s\n", c.name, why)
		}
		if retried != "" {
			fmt.Fprintf(&b, "%s: handshakes tried again: %s\n", c.name, retried)
		}
	}
	for _, note := range notes {
		fmt.Fprintln(&b, note)
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

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func two(a, b int64) string {
	if a == 0 && b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f, %.1f MiB", float64(a)/(1<<20), float64(b)/(1<<20))
}
