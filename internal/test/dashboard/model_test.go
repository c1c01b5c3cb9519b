package dashboard

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// dashboard is the part of Grafana's JSON that the tests and the picture need.
type dashboard struct {
	Title  string
	Panels []panel
}

type panel struct {
	Title, Type string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		RefID, Expr, LegendFormat string
		Instant                   bool
	}
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
			Custom struct {
				FillOpacity       float64
				LineInterpolation string
				Stacking          struct{ Mode string }
			}
		}
		Overrides []struct {
			Matcher    struct{ Options string }
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
	Transformations []struct {
		ID      string
		Options struct {
			ExcludeByName map[string]bool
			IndexByName   map[string]int
			RenameByName  map[string]string
		}
	}
}

func readDashboard(t testing.TB) dashboard {
	t.Helper()
	text, err := os.ReadFile(monitoring + "/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// view is a viewer's selection: a time range, with all namespaces and pods.
type view struct {
	from, to time.Time
	interval time.Duration // between the points of a graph
	rate     time.Duration // Grafana's $__rate_interval
}

// expr replaces Grafana's variables in a query.
func (v view) expr(text string) string {
	return strings.NewReplacer(
		"$namespace", ".*", "$pod", ".*",
		"$__range", v.to.Sub(v.from).Round(time.Second).String(),
		"$__rate_interval", v.rate.String(),
	).Replace(text)
}

// shown is a target's result, with the names in the legend.
type shown struct {
	series
	target int
	name   string
}

// ask runs a panel's queries.
func (p panel) ask(t testing.TB, from *prometheus, v view) []shown {
	t.Helper()
	var all []shown
	for i, target := range p.Targets {
		var found []series
		if target.Instant {
			found = from.query(t, v.expr(target.Expr), v.to)
		} else {
			found = from.queryRange(t, v.expr(target.Expr), v.from, v.to, v.interval)
		}
		for _, s := range found {
			all = append(all, shown{s, i, legend(target.LegendFormat, s.labels)})
		}
	}
	slices.SortStableFunc(all, func(a, b shown) int {
		if a.target != b.target {
			return a.target - b.target
		}
		return strings.Compare(a.name, b.name)
	})
	return all
}

var legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)

func legend(format string, labels map[string]string) string {
	if format == "__auto" {
		return strings.Join(slices.Sorted(maps.Values(labels)), " ")
	}
	return legendLabel.ReplaceAllStringFunc(format, func(l string) string { return labels[legendLabel.FindStringSubmatch(l)[1]] })
}
