package tcp

import (
	"testing"
	"time"
)

// A message on a WebSocket counts while it is being processed, even if the app
// pings its client meanwhile, as uvicorn does.
func TestMessageInWorkWhileTheAppPings(t *testing.T) {
	for name, message := range map[string]int{"a small message": 11, "a larger one": 60} {
		t.Run(name, func(t *testing.T) {
			w := newWire(Requests, http1Port, patience{auto: true})
			w.v.learned = &learned{answers: enoughAnswers, firstAt: -enoughTime.Milliseconds(), answer: time.Second}
			w.came(200) // the upgrade
			w.look()
			w.went(130)
			w.look()
			w.pass(time.Second)
			w.came(message)
			w.look()
			for i := range 30 {
				w.pass(time.Second)
				if i%10 == 7 {
					w.went(6)
					if !w.look() {
						t.Fatalf("it does not count while the app's ping is on its way, after %d s: %+v", i, w.m)
					}
					w.pass(10 * time.Millisecond)
					w.came(10)
				}
				if !w.look() {
					t.Fatalf("it does not count after %d s: %+v", i, w.m)
				}
			}
			w.went(40)
			w.look()
			w.pass(20 * time.Second)
			if w.look() {
				t.Errorf("it counts when it was answered: %+v", w.m)
			}
		})
	}
}
