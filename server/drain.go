package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"lastcall/drain"
)

// takeBackLimit is how long the answer waits for registries that are slow to
// take the instance back. They go on being told.
const takeBackLimit = 5 * time.Second

func beginDrain(d *drain.Drainer, state *shared[[]byte]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d.Begin(drain.CauseCall)
		answerShared(w, r, http.StatusAccepted, state)
	}
}

func takeBack(d *drain.Drainer, state *shared[[]byte]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), takeBackLimit)
		defer cancel()
		err := d.TakeBack(ctx)
		if errors.Is(err, drain.ErrServing) || errors.Is(err, drain.ErrTooLate) {
			fail(w, http.StatusConflict, err.Error())
			return
		}
		answerShared(w, r, http.StatusOK, state)
	}
}

func status(state *shared[[]byte]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answerShared(w, r, http.StatusOK, state)
	}
}
