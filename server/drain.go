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

func beginDrain(d *drain.Drainer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d.Begin(drain.CauseCall)
		answer(w, http.StatusAccepted, d.Status(r.Context()))
	}
}

func takeBack(d *drain.Drainer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), takeBackLimit)
		defer cancel()
		err := d.TakeBack(ctx)
		if errors.Is(err, drain.ErrServing) || errors.Is(err, drain.ErrTooLate) {
			fail(w, http.StatusConflict, err.Error())
			return
		}
		answer(w, http.StatusOK, d.Status(r.Context()))
	}
}

func status(d *drain.Drainer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, d.Status(r.Context()))
	}
}
