// What Go programs do every day.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	for _, step := range []func() error{goroutines, children, files, network, copying, profiles, signals} {
		if err := step(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("all done")
}

func goroutines() error {
	var group sync.WaitGroup
	var lock sync.Mutex
	sum := 0
	for i := range 1000 {
		group.Go(func() {
			lock.Lock()
			defer lock.Unlock()
			sum += i
		})
	}
	group.Wait()
	if sum != 499500 {
		return fmt.Errorf("sum is %d", sum)
	}
	// Threads of their own, so that more than the few of the scheduler are made.
	for range 8 {
		group.Go(func() {
			runtime.LockOSThread()
			time.Sleep(time.Millisecond)
		})
	}
	group.Wait()
	runtime.GC()
	return nil
}

func children() error {
	out, err := exec.Command("echo", "hello").Output()
	if err != nil || string(out) != "hello\n" {
		return fmt.Errorf("echo: %q, %w", out, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	sleeper := exec.CommandContext(ctx, "sleep", "60")
	sleeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := sleeper.Run(); err == nil {
		return errors.New("sleep was not ended")
	}
	return nil
}

func files() error {
	folder, err := os.MkdirTemp("", "everyday-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	name := filepath.Join(folder, "file")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		return err
	}
	from, err := os.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(name + "2")
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	if err := errors.Join(to.Sync(), to.Close(), os.Rename(name+"2", name+"3"), os.Chmod(name, 0o400)); err != nil {
		return err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	_, err = root.Stat("file3")
	return err
}

func network() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") })}
	go server.Serve(listener)
	defer server.Close()
	answer, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if page, err := io.ReadAll(answer.Body); err != nil || string(page) != "page" {
		return fmt.Errorf("page is %q, %w", page, err)
	}
	if _, err := net.Interfaces(); err != nil {
		return err
	}
	_, err = net.LookupHost("localhost")
	return err
}

// copying hands one connection's data to another, for which the net package uses splice where it may.
func copying() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	pair := func() (net.Conn, net.Conn, error) {
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return nil, nil, err
		}
		server, err := listener.Accept()
		return client, server, err
	}
	source, from, err := pair()
	if err != nil {
		return err
	}
	to, sink, err := pair()
	if err != nil {
		return err
	}
	text := strings.Repeat("through two connections ", 10_000)
	go func() {
		io.WriteString(source, text)
		source.Close()
	}()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(to, from)
		to.Close()
		copied <- err
	}()
	got, err := io.ReadAll(sink)
	if err = errors.Join(err, <-copied); err != nil {
		return fmt.Errorf("copying between connections: %w", err)
	}
	if string(got) != text {
		return fmt.Errorf("%d bytes came, not %d", len(got), len(text))
	}
	return nil
}

func profiles() error {
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		return err
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
	}
	pprof.StopCPUProfile()
	return nil
}

func signals() error {
	seen := make(chan os.Signal, 1)
	signal.Notify(seen, syscall.SIGUSR1)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		return err
	}
	select {
	case <-seen:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("no signal came")
	}
}
