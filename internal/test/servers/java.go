package servers

import (
	"syscall"
	"testing"
)

// Java returns java's arguments for a program that is to start fast, at the cost of
// long-term speed: most of what a Java program takes in a test is its start. args
// are its own arguments.
func Java(args ...string) []string {
	return append([]string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"}, args...)
}

// Spring returns java's arguments for the Spring Boot program with that name, with
// its class archive. The install script has made both. Java ignores an archive that
// does not fit.
func Spring(t testing.TB, name string, args ...string) []string {
	t.Helper()
	Need(t, "java")
	Need(t, name+".d/sum")
	return spring(name, args...)
}

// spring is Spring for a program that is known to be installed.
func spring(name string, args ...string) []string {
	folder := Bin() + "/" + name + ".d/"
	return Java(append([]string{
		"-Xmx160m", "-XX:SharedArchiveFile=" + folder + name + ".jsa", "-jar", folder + name + ".jar",
		"--spring.main.banner-mode=off",
	}, args...)...)
}

// startJava starts a Java program.
func startJava(t testing.TB, args ...string) *Process {
	t.Helper()
	return startProcess(t, syscall.SIGKILL, "java", append(Java("-Xmx160m"), args...)...)
}
