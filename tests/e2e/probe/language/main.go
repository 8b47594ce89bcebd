// What Go programs do beyond arithmetic, each with an answer that is checked: goroutines on many threads, the network poller,
// a child process, files.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var group sync.WaitGroup
	sums := make(chan int, 8)
	for number := range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			runtime.LockOSThread()
			sums <- number
		}()
	}
	group.Wait()
	close(sums)
	total := 0
	for number := range sums {
		total += number
	}
	if total != 28 {
		check(fmt.Errorf("the goroutines add up to %d", total))
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() {
		peer, err := listener.Accept()
		check(err)
		_, err = io.Copy(peer, peer)
		check(err)
	}()
	peer, err := net.Dial("tcp", listener.Addr().String())
	check(err)
	_, err = peer.Write([]byte("hello"))
	check(err)
	answer := make([]byte, 5)
	_, err = io.ReadFull(peer, answer)
	check(err)

	said, err := exec.Command("/bin/echo", "seven").Output()
	check(err)
	check(os.WriteFile("/workspace/file", said, 0o600))
	back, err := os.ReadFile("/workspace/file")
	check(err)
	fmt.Printf("go runs: %s %s", answer, back)
}
