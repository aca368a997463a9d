package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that was started, with those that it starts.
type process struct {
	cmd    *exec.Cmd
	said   *os.File
	exited chan struct{}
}

// patience is how long a server may take to start, to answer or to end.
const patience = 20 * time.Second

// start runs a program; what it says goes to a file in the folder of the run.
func (l *lab) start(env []string, program string, args ...string) (*process, error) {
	said, err := os.CreateTemp(l.dir, filepath.Base(program)+"-*.log")
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(program, args...), said: said, exited: make(chan struct{})} //nolint:gosec // one that this program built or found
	p.cmd.Dir = l.dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = said, said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // of the thread, which Go keeps
	if err := p.cmd.Start(); err != nil {
		said.Close()
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // it is told to end
		close(p.exited)
	}()
	return p, nil
}

// firstLine waits for the first line that the program prints.
func (p *process) firstLine() (string, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		said, err := os.ReadFile(p.said.Name())
		if err != nil {
			return "", err
		}
		if line, _, found := bytes.Cut(said, []byte("\n")); found {
			return string(line), nil
		}
		if p.over() || time.Now().After(deadline) {
			return "", fmt.Errorf("%s said no address:\n%s", p.cmd.Path, said)
		}
	}
}

// lastWords returns the end of what the program has said.
func (p *process) lastWords() string {
	const most = 2000
	said, err := os.ReadFile(p.said.Name())
	if err != nil {
		return err.Error()
	}
	return string(said[max(0, len(said)-most):])
}

func (p *process) over() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be over
	select {
	case <-p.exited:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill() // nothing is left to do if that fails
		<-p.exited
	}
	p.said.Close()
}

// tree returns the program's id and those of the programs that it has started.
func (p *process) tree() []int {
	pid := p.cmd.Process.Pid
	pids := []int{pid}
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return pids
	}
	for field := range strings.FieldsSeq(string(list)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// cpu returns the processor time, user and system, that a process has taken with all its
// threads, also those that have ended. The kernel counts it exactly and tells hundredths
// of a second.
func cpu(pid int) time.Duration {
	const tick = time.Second / 100 // USER_HZ, which is the same on all Linux
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime
		n, _ := strconv.ParseInt(field, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// pss returns the memory of a process, with its share of what it shares.
func pss(pid int) int64 {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "Pss:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// fetch gets what a Go server's admin or pprof address answers.
func fetch(addr, path string) ([]byte, error) {
	client := http.Client{Timeout: time.Minute}
	answer, err := client.Get("http://" + addr + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return body, err
}
