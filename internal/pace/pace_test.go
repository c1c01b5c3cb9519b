package pace

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Busy
		tooMuch := errors.New("too much")
		b.Answered(503, nil, tooMuch)
		if b.Err() != nil {
			t.Error("a single 503 leads to a pause")
		}
		for n, want := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second} {
			b.Answered(429, nil, tooMuch)
			if !errors.Is(b.Err(), tooMuch) {
				t.Fatalf("answer %d: there is no pause", n+2)
			}
			<-time.After(want * 4 / 5)
			if n == 0 {
				<-time.After(want / 5)
				if b.Err() != nil {
					t.Errorf("answer %d: it is not asked after %v", n+2, want)
				}
			}
		}
		b.Answered(200, nil, nil)
		if b.Err() != nil {
			t.Error("it is not asked although it has answered")
		}
		b.Answered(503, http.Header{"Retry-After": {"7"}}, tooMuch)
		<-time.After(5 * time.Second)
		if b.Err() == nil {
			t.Error("it is asked before the time that it has asked for")
		}
		<-time.After(2 * time.Second)
		if b.Err() != nil {
			t.Error("it is not asked after that time")
		}
		b.Answered(503, http.Header{"Retry-After": {"3600"}}, tooMuch)
		<-time.After(longestWish)
		if b.Err() != nil {
			t.Error("it is not asked for longer than a pod has")
		}
	})
}

func TestLess(t *testing.T) {
	for range 1000 {
		if got := Less(time.Second); got > time.Second || got < 800*time.Millisecond {
			t.Fatalf("got %v, want from 0.8 s to 1 s", got)
		}
	}
	if got := Less(-time.Second); got != -time.Second {
		t.Errorf("got %v", got)
	}
}
