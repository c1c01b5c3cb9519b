package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"lastcall/drain"
)

// takeBackLimit is how long the answer waits for registries that are slow to
// restore the instance. The calls to them continue after that.
const takeBackLimit = 5 * time.Second

// beginDrain begins a drain, or joins the one under way, and answers at once.
func beginDrain(d *drain.Drainer, state *shared[[]byte]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		budget, given, err := budgetOf(r.URL.RawQuery)
		switch {
		case err != nil:
			fail(w, http.StatusBadRequest, err.Error())
			return
		case given:
			d.BeginWithin(budget)
		default:
			d.Begin(drain.CauseCall)
		}
		answerShared(w, r, http.StatusAccepted, state)
	}
}

// budgetOf parses the query of POST /drain. An unknown parameter is an error:
// it may be a misspelled budget, and without its budget the drain would end too
// early.
func budgetOf(query string) (budget time.Duration, given bool, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, false, fmt.Errorf("the query cannot be read: %w; write /drain?budget=10m", err)
	}
	for name := range values {
		if name != "budget" {
			return 0, false, fmt.Errorf("/drain has no parameter %.50q: budget is the only one", name)
		}
	}
	all, given := values["budget"]
	switch {
	case !given:
		return 0, false, nil
	case len(all) > 1:
		return 0, false, errors.New("budget is given twice")
	case all[0] == "none":
		return drain.Unbounded, true, nil
	}
	if budget, err = time.ParseDuration(all[0]); err != nil || budget <= 0 {
		return 0, false, fmt.Errorf("budget=%.50q: must be a duration above 0, such as 90s or 10m, or none", all[0])
	}
	return budget, true, nil
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
