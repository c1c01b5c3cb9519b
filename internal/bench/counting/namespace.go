package counting

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// The addresses of the pod and of its clients on the link between them.
const (
	podAddress    = "10.99.0.1"
	clientAddress = "10.99.0.2"
)

// linkDelay is how long the link delays each packet.
const linkDelay = 300 * time.Microsecond

// namespace is a network namespace.
type namespace struct{ file *os.File }

// newNamespace creates a network namespace with a loopback interface, and runs
// setUp in it.
func newNamespace(setUp func() error) (*namespace, error) {
	n := &namespace{}
	made := make(chan error)
	go func() {
		// The thread stays in the namespace. It ends with this goroutine.
		runtime.LockOSThread()
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("making a network namespace: %w", err)
			}
			var err error
			if n.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			if err := loopbackUp(); err != nil {
				return err
			}
			return setUp()
		}()
	}()
	if err := <-made; err != nil {
		return nil, err
	}
	return n, nil
}

// do runs f in the namespace.
func (n *namespace) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // see above
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// command returns the command that runs a program in the namespace.
func (n *namespace) command() []string {
	return []string{"nsenter", fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), n.file.Fd()), "--"}
}

// loopbackUp enables the loopback interface of this thread's namespace.
func loopbackUp() error {
	if err := configure("lo", ""); err != nil {
		return fmt.Errorf("bringing the loopback up: %w", err)
	}
	return nil
}

// configure sets an interface's address, if address is not empty, and enables the
// interface.
func configure(name, address string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only used for ioctl
	set := func(call uint, value func(*unix.Ifreq) error) error {
		request, err := unix.NewIfreq(name)
		if err == nil {
			err = value(request)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, call, request)
		}
		return err
	}
	if address != "" {
		if err := errors.Join(
			set(unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(net.ParseIP(address).To4()) }),
			set(unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(net.CIDRMask(24, 32)) }),
		); err != nil {
			return err
		}
	}
	return set(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil })
}

// openTun creates a network interface in this thread's namespace. Its packets are
// read from and written to the returned file.
func openTun(address string) (fd int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("making a TUN interface with /dev/net/tun, for which CAP_NET_ADMIN is needed: %w", err)
		}
	}()
	if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return 0, err
	}
	const name = "link"
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil {
		err = configure(name, address)
	}
	if err != nil {
		_ = unix.Close(fd) // the first error is returned
	}
	return fd, err
}

// connectClients creates a namespace for clients, and the link between it and the
// process's namespace. Both last as long as the process.
func connectClients() (*namespace, error) {
	pod, err := openTun(podAddress)
	if err != nil {
		return nil, err
	}
	var clients int
	n, err := newNamespace(func() error {
		clients, err = openTun(clientAddress)
		return err
	})
	if err != nil {
		return nil, err
	}
	forward(pod, clients)
	forward(clients, pod)
	return n, nil
}

// packet is a packet on the link.
type packet struct {
	bytes []byte
	due   time.Time
}

// forward forwards packets, linkDelay after they arrived.
func forward(from, to int) {
	const longest, mostUnderWay = 1500, 4096
	underWay := make(chan packet, mostUnderWay)
	go func() {
		defer close(underWay)
		for {
			b := make([]byte, longest)
			n, err := unix.Read(from, b)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			underWay <- packet{b[:n], time.Now().Add(linkDelay)}
		}
	}()
	go func() {
		// Go's timers are too coarse for this; the kernel's are not.
		runtime.LockOSThread()
		for p := range underWay {
			for left := time.Until(p.due); left > 0; left = time.Until(p.due) {
				pause := unix.NsecToTimespec(left.Nanoseconds())
				_ = unix.Nanosleep(&pause, nil) // if it ends early, the loop repeats it
			}
			_, _ = unix.Write(to, p.bytes) // TCP retransmits lost packets
		}
	}()
}
