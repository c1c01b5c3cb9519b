package main

import (
	"fmt"
	"io"
	"runtime"

	"lastcall/admission/webhook"
)

// writeMetrics writes the metrics that every replica has, in Prometheus' text format.
func writeMetrics(w io.Writer, ready error, certificates webhook.Certificates) {
	family := func(name, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name) }
	family("lastcall_admission_build_info", "The version that runs; the value is always 1.")
	fmt.Fprintf(w, "lastcall_admission_build_info{version=%q,goversion=%q} 1\n", version, runtime.Version())
	family("lastcall_admission_ready", "1 if /readyz reports that the replica is ready, or else 0.")
	value := 1
	if ready != nil {
		value = 0
	}
	fmt.Fprintf(w, "lastcall_admission_ready %d\n", value)
	family("lastcall_admission_certificate_expiry_timestamp_seconds", "When the served certificate expires, in seconds since 1970.")
	if pair, err := certificates.Get(nil); err == nil && pair.Leaf != nil {
		fmt.Fprintf(w, "lastcall_admission_certificate_expiry_timestamp_seconds %d\n", pair.Leaf.NotAfter.Unix())
	}
}
