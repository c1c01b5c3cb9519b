// Package bench measures the figures in docs/admission.md: `make bench-admission`.
package bench
