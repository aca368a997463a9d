package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// line is what the runs of one subject have shown; nil stands for a run that came to nothing.
type line struct {
	name    string
	samples []*sample
	missing string // why there are none
}

// median returns the middle of what the runs have shown of one thing.
func (l *line) median(of func(*sample) float64) float64 {
	values := make([]float64, len(l.samples))
	for i, s := range l.samples {
		values[i] = of(s)
	}
	return median(values)
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	switch n := len(values); {
	case n == 0:
		return 0
	case n%2 == 1:
		return values[n/2]
	default:
		return (values[n/2-1] + values[n/2]) / 2
	}
}

// ratio compares two lines, run by run: those of one round had the same neighbours.
func ratio(a, b *line, of func(*sample) float64) string {
	var ratios []float64
	for i := range min(len(a.samples), len(b.samples)) {
		if under := of(b.samples[i]); under != 0 {
			ratios = append(ratios, of(a.samples[i])/under)
		}
	}
	if len(ratios) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f..%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

type column struct {
	title string
	of    func(*sample) float64
	show  func(float64) string
	ratio string // the title of the column that compares it; none if empty
}

func number(format string) func(float64) string {
	return func(v float64) string { return fmt.Sprintf(format, v) }
}

func micros(v float64) string {
	d := time.Duration(v * float64(time.Microsecond))
	switch {
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func columns(w *workload) []column {
	if w.memory {
		return []column{
			{"given back, KB", func(s *sample) float64 { return s.kept }, number("%.1f"), "ratio"},
			{"as it floats, KB", func(s *sample) float64 { return s.floating }, number("%.1f"), "ratio"},
		}
	}
	all := []column{
		{"CPU, µs/" + strings.Fields(w.op)[0], func(s *sample) float64 { return s.cpu }, number("%.2f"), "CPU ratio"},
		{"a second", func(s *sample) float64 { return s.rate }, number("%.0f"), "rate ratio"},
		{"p50", func(s *sample) float64 { return s.p50 }, micros, ""},
		{"p99", func(s *sample) float64 { return s.p99 }, micros, "p99 ratio"},
		{"p99.9", func(s *sample) float64 { return s.p999 }, micros, ""},
	}
	if w.untimed {
		all = all[:2]
	}
	if w.joined {
		all = slices.Insert(all, 1, column{"NATS, µs", func(s *sample) float64 { return s.broker }, number("%.2f"), ""})
	}
	return all
}

// write writes the table of a workload.
func (w *workload) write(to io.Writer, lines []*line) {
	fmt.Fprintf(to, "\n### %s\n\n`%s`.", w.title, w.id)
	if w.note != "" {
		fmt.Fprintf(to, " %s", w.note)
	}
	if w.target != "" {
		fmt.Fprintf(to, " Target: %s.", w.target)
	}
	titles := []string{""}
	for _, c := range columns(w) {
		titles = append(titles, c.title)
		if c.ratio != "" {
			titles = append(titles, c.ratio)
		}
	}
	fmt.Fprintf(to, "\n\n| %s |\n%s|\n", strings.Join(titles, " | "), strings.Repeat("|---", len(titles)))
	for _, l := range lines {
		if len(l.samples) == 0 {
			continue // it is among the notes
		}
		row := []string{"| " + l.name}
		for _, c := range columns(w) {
			row = append(row, c.show(l.median(c.of)))
			switch {
			case c.ratio == "":
			case l == lines[0]:
				row = append(row, "")
			default:
				row = append(row, ratio(lines[0], l, c.of))
			}
		}
		fmt.Fprintln(to, strings.Join(row, " | ")+" |")
	}
	fmt.Fprintln(to)
	for _, l := range lines {
		var notes []string
		if l.missing != "" {
			notes = append(notes, l.missing)
		}
		if n := len(l.samples); n > 0 && l.samples[n-1].note != "" {
			notes = append(notes, l.samples[n-1].note)
		}
		if len(notes) > 0 {
			fmt.Fprintf(to, "- %s: %s\n", l.name, strings.Join(notes, "; "))
		}
	}
}
