//go:build !race

package sidecartest

const raceDetector = false
