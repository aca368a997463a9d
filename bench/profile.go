package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// profileFile returns where a profile of the product under a workload goes, or "" if none is
// wanted.
func (r *run) profileFile(w *workload, kind string) string {
	if r.profiles == "" {
		return ""
	}
	return filepath.Join(r.profiles, strings.ReplaceAll(w.id, "/", "-")+"."+kind+".prof")
}

func saveProfile(admin, path, file string) error {
	profile, err := fetch(admin, path)
	if err != nil {
		return fmt.Errorf("profiling: %w", err)
	}
	return os.WriteFile(file, profile, 0o600)
}

// profileCPU runs the product once more, and notes where its time goes.
func (r *run) profileCPU(w *workload, of runner) error {
	file := r.profileFile(w, "cpu")
	if file == "" || w.memory {
		return nil
	}
	const lasts = 5
	nodes := of.server().admin
	done := make(chan error, len(nodes))
	for i, admin := range nodes {
		go func() {
			done <- saveProfile(admin, fmt.Sprintf("/debug/pprof/profile?seconds=%d", lasts), r.profileFile(w, kindOfNode(i)))
		}()
	}
	if _, err := of.run((lasts + 1) * time.Second); err != nil {
		return err
	}
	for range nodes {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

// kindOfNode returns how profiles of the processor time of a node are called.
func kindOfNode(i int) string {
	if i == 0 {
		return "cpu"
	}
	return fmt.Sprintf("cpu-node%d", i+1)
}

// top returns the lines of a profile that matter most.
func top(file, kind string) string {
	args := []string{"tool", "pprof", "-top", "-nodecount=15"}
	if kind == "heap" {
		args = append(args, "-sample_index=inuse_space")
	}
	out, err := exec.Command("go", append(args, file)...).CombinedOutput() //nolint:gosec // who runs it says where
	if err != nil {
		return fmt.Sprintf("go tool pprof: %v\n%s", err, out)
	}
	return string(out)
}
