// Command bench measures the product beside its peers, see docs/benchmarks.md. `make bench`
// runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// run is what the flags say.
type run struct {
	only     *regexp.Regexp
	peers    *regexp.Regexp
	rounds   int
	lasts    time.Duration
	conns    int
	profiles string
	out      io.Writer
}

func main() {
	only := flag.String("run", usual, "regular expression: which workloads; . for all")
	peers := flag.String("peers", ".", "regular expression: which servers, beside the first of each table")
	r := &run{out: os.Stdout}
	flag.IntVar(&r.rounds, "rounds", 5, "how often each server has its turn")
	flag.DurationVar(&r.lasts, "lasts", 3*time.Second, "how long a turn is")
	flag.IntVar(&r.conns, "idle", 5000, "how many connections are held idle")
	flag.StringVar(&r.profiles, "profiles", "", "folder for profiles of the product; none without")
	report := flag.String("report", "", "file that the tables go to, too")
	list := flag.Bool("list", false, "list the workloads")
	flag.Parse()
	var err error
	if r.only, err = regexp.Compile(*only); err != nil {
		fail(fmt.Errorf("-run: %w", err))
	}
	if r.peers, err = regexp.Compile(*peers); err != nil {
		fail(fmt.Errorf("-peers: %w", err))
	}
	if *list {
		for _, w := range workloads(r.conns) {
			fmt.Printf("%-20s %s\n", w.id, w.title)
		}
		return
	}
	if *report != "" {
		file, err := os.Create(*report)
		if err != nil {
			fail(err)
		}
		defer file.Close()
		r.out = io.MultiWriter(os.Stdout, file)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := r.all(ctx); err != nil {
		stop()
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// all runs what was chosen.
func (r *run) all(ctx context.Context) error {
	if r.rounds < 1 {
		return errors.New("-rounds is less than 1")
	}
	if r.profiles != "" {
		if err := os.MkdirAll(r.profiles, 0o750); err != nil {
			return err
		}
	}
	root, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nginx's workers, who may be somebody else, must get in
		return err
	}
	l, err := newLab(ctx, root, dir)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.build(); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "%s, %s, %d processors, %s. %d rounds of %s.\n", time.Now().UTC().Format(time.DateOnly), system(), runtime.NumCPU(), runtime.Version(), r.rounds, r.lasts)
	for _, w := range workloads(r.conns) {
		if !r.only.MatchString(w.id) {
			continue
		}
		if err := r.one(l, w); err != nil {
			return fmt.Errorf("%s: %w", w.id, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func system() string {
	out, err := exec.Command("uname", "-srm").Output()
	if err != nil {
		return runtime.GOOS
	}
	return strings.TrimSpace(string(out))
}

// one runs one workload: all servers in turn, again and again.
func (r *run) one(l *lab, w *workload) error {
	l.fanout = w.fanout
	var lines []*line
	var runners []runner
	defer func() {
		for _, one := range runners {
			if one != nil {
				one.close()
			}
		}
	}()
	for i, s := range w.subjects {
		if i > 0 && !r.peers.MatchString(s.name) {
			continue
		}
		one, err := s.prepare(l, r)
		at := &line{name: s.name}
		if err != nil {
			if i == 0 {
				return err
			}
			one, at.missing = nil, "left out: "+err.Error()
		}
		lines, runners = append(lines, at), append(runners, one)
	}
	rounds := r.rounds
	if w.memory { // which is steadier than time, and takes longer
		rounds = min(rounds, 3)
	}
	for round := range rounds + 1 {
		for i, one := range runners {
			if one == nil || l.ctx.Err() != nil {
				continue
			}
			lasts := r.lasts
			if round == 0 { // nobody is measured before all are warm
				if lasts = r.lasts / 5; w.memory {
					continue
				}
			}
			s, err := one.run(lasts)
			if err != nil {
				if i == 0 {
					return fmt.Errorf("%s: %w", lines[i].name, err)
				}
				one.close()
				runners[i], lines[i].missing = nil, "given up: "+err.Error()
				continue
			}
			if round > 0 {
				lines[i].samples = append(lines[i].samples, s)
			}
		}
	}
	w.write(r.out, lines)
	if err := r.profileCPU(w, runners[0]); err != nil {
		return err
	}
	for _, kind := range []string{kindOfNode(0), kindOfNode(1), kindOfNode(2), "heap"} {
		file := r.profileFile(w, kind)
		if _, err := os.Stat(file); file != "" && err == nil {
			fmt.Fprintf(r.out, "\n```\n%s```\n", top(file, kind))
		}
	}
	return nil
}
