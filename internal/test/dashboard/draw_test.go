package dashboard

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The sizes of the picture: Grafana's grid has 24 columns.
const (
	column = 56.0
	row    = 36.0
	margin = 5.0
	header = 46.0
)

// canvas is an SVG that is being drawn.
type canvas struct{ bytes.Buffer }

func (c *canvas) say(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

// text writes at x and y; look holds additional attributes.
func (c *canvas) text(x, y float64, look, text string) {
	c.say(`<text x="%.1f" y="%.1f" %s>%s</text>`, x, y, look, escape(text))
}

func escape(text string) string { return html.EscapeString(text) }

// draw draws the picture of the dashboard: its panels, placed as in the JSON, with
// Prometheus' answers to their queries. It supports only the kinds of panels and
// the options that this dashboard uses.
func draw(t testing.TB, d dashboard, prom *prometheus, v view) []byte {
	t.Helper()
	height := 0
	for _, p := range d.Panels {
		height = max(height, p.GridPos.Y+p.GridPos.H)
	}
	c := &canvas{}
	c.say(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#24292e">`,
		24*column+2*margin, header+row*float64(height)+2*margin)
	c.say(`<rect width="100%%" height="100%%" fill="#f4f5f5"/>`)
	c.text(3*margin, 30, `font-size="20" font-weight="bold"`, d.Title)
	c.text(24*column, 30, `text-anchor="end" fill="#666"`, fmt.Sprintf("Namespace: All   Pod: All   %s to %s", v.from.UTC().Format(time.TimeOnly), v.to.UTC().Format("15:04:05 MST")))
	for _, p := range d.Panels {
		b := box{
			x: 2*margin + column*float64(p.GridPos.X), y: header + row*float64(p.GridPos.Y) + margin,
			w: column*float64(p.GridPos.W) - 2*margin, h: row*float64(p.GridPos.H) - 2*margin,
		}
		c.say(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3" fill="white" stroke="#d8d9da"/>`, b.x, b.y, b.w, b.h)
		c.text(b.x+10, b.y+20, `font-weight="bold"`, p.Title)
		b = box{b.x + 10, b.y + 30, b.w - 20, b.h - 40}
		all := p.ask(t, prom, v)
		switch p.Type {
		case "timeseries":
			c.graph(p, b, all, v)
		case "stat":
			c.stat(p, b, all)
		case "bargauge":
			c.bars(p, b, all)
		case "table":
			c.table(p, b, all)
		default:
			t.Fatalf("%s: panels of type %s cannot be drawn", p.Title, p.Type)
		}
	}
	c.say("</svg>")
	return c.Bytes()
}

// box is a rectangle to draw in.
type box struct{ x, y, w, h float64 }

func last(s shown) float64 { return s.points[len(s.points)-1].value }

// palette is for series without a colour in the dashboard.
var palette = []string{"green", "yellow", "blue", "orange", "red", "purple"}

// shades maps Grafana's colour names.
var shades = map[string]string{
	"green": "#56a64b", "yellow": "#e0b400", "blue": "#3274d9", "orange": "#ff780a", "red": "#e02f44", "purple": "#a352cc",
}

// property returns an override of the series name, or nil.
func (p panel) property(name, id string) json.RawMessage {
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if o.Matcher.Options == name && property.ID == id {
				return property.Value
			}
		}
	}
	return nil
}

func (p panel) color(name string, i int) string {
	var fixed struct{ FixedColor string }
	if json.Unmarshal(p.property(name, "color"), &fixed) == nil && fixed.FixedColor != "" {
		return shades[fixed.FixedColor]
	}
	return shades[palette[i%len(palette)]]
}

// threshold returns the colour of a value.
func (p panel) threshold(value float64) string {
	found := "#24292e"
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || value >= *step.Value {
			found = shades[step.Color]
		}
	}
	return found
}

// format formats a value in the panel's unit.
func (p panel) format(value float64) string {
	short := func(v float64) string { return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) }
	switch p.FieldConfig.Defaults.Unit {
	case "s":
		return short(value) + " s"
	case "percentunit":
		return short(100*value) + "%"
	case "reqps":
		return short(value) + " req/s"
	default:
		return short(value)
	}
}

func (c *canvas) stat(p panel, b box, all []shown) {
	for i, s := range all {
		h := b.h / float64(len(all))
		y := b.y + h*(float64(i)+0.5)
		size := min(h*0.6, 44)
		if s.name != "" {
			c.text(b.x+b.w/2, y-size/2-4, `text-anchor="middle" font-size="14"`, s.name)
		}
		c.text(b.x+b.w/2, y+size*0.45, fmt.Sprintf(`text-anchor="middle" font-size="%.0f" fill=%q`, size, p.threshold(last(s))), p.format(last(s)))
	}
}

func (c *canvas) bars(p panel, b box, all []shown) {
	most := 0.0
	for _, s := range all {
		most = max(most, last(s))
	}
	label, number := 86.0, 62.0
	h := min(b.h/float64(max(len(all), 1)), 44)
	for i, s := range all {
		y, color := b.y+h*float64(i), p.color(s.name, i)
		c.text(b.x+label-8, y+h/2+4, `text-anchor="end"`, s.name)
		c.say(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#ececee"/>`, b.x+label, y+4, b.w-label-number, h-8)
		if most > 0 {
			c.say(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, b.x+label, y+4, (b.w-label-number)*last(s)/most, h-8, color)
		}
		c.text(b.x+b.w, y+h/2+5, fmt.Sprintf(`text-anchor="end" font-size="15" fill=%q`, color), p.format(last(s)))
	}
}

// table draws the rows that Grafana's merge and organize produce from the results.
func (c *canvas) table(p panel, b box, all []shown) {
	var columns []string
	var rows []map[string]string
	place := map[string]int{}
	for _, s := range all {
		value := "Value"
		if len(p.Targets) > 1 {
			value += " #" + p.Targets[s.target].RefID
		}
		key := fmt.Sprint(s.labels)
		if _, known := place[key]; !known {
			place[key] = len(rows)
			rows = append(rows, map[string]string{})
		}
		cells := rows[place[key]]
		cells[value] = p.format(last(s))
		for name, label := range s.labels {
			cells[name] = label
		}
		for name := range cells {
			if !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
		}
	}
	rename := map[string]string{}
	for _, transformation := range p.Transformations {
		if o := transformation.Options; transformation.ID == "organize" {
			columns = slices.DeleteFunc(columns, func(name string) bool { return o.ExcludeByName[name] })
			slices.SortFunc(columns, func(a, b string) int { return cmp.Compare(o.IndexByName[a], o.IndexByName[b]) })
			rename = o.RenameByName
		}
	}
	const h = 22.0
	w := b.w / float64(max(len(columns), 1))
	for i, name := range columns {
		c.text(b.x+w*float64(i), b.y+14, `fill="#3274d9"`, cmp.Or(rename[name], name))
		for j, cells := range rows {
			if y := b.y + h*float64(j+1); y+h <= b.y+b.h {
				c.text(b.x+w*float64(i), y+14, "", cells[name])
				c.say(`<path d="M%.1f %.1fh%.1f" stroke="#ececee"/>`, b.x, y, b.w)
			}
		}
	}
}

// graph draws lines over time. A line is interrupted where points are missing.
func (c *canvas) graph(p panel, b box, all []shown, v view) {
	custom := p.FieldConfig.Defaults.Custom
	stacked := custom.Stacking.Mode == "normal"
	below := map[float64]float64{} // the top of the series stacked so far, at each time
	top := 0.0
	for i, s := range all {
		for j := range s.points {
			if stacked {
				all[i].points[j].value += below[s.points[j].at]
				below[s.points[j].at] = all[i].points[j].value
			}
			top = max(top, all[i].points[j].value)
		}
	}
	tick := niceStep(top)
	top = math.Max(tick, math.Ceil(top/tick)*tick)
	plot := box{b.x + 58, b.y, b.w - 62, b.h - 44}
	x := func(at float64) float64 {
		from := float64(v.from.UnixMilli()) / 1000
		return plot.x + plot.w*(at-from)/v.to.Sub(v.from).Seconds()
	}
	y := func(value float64) float64 { return plot.y + plot.h*(1-value/top) }

	for value := 0.0; value <= top+tick/2; value += tick {
		c.say(`<path d="M%.1f %.1fh%.1f" stroke="#e3e4e6"/>`, plot.x, y(value), plot.w)
		c.text(plot.x-6, y(value)+4, `text-anchor="end" font-size="11" fill="#666"`, p.format(value))
	}
	step := v.to.Sub(v.from) / 5
	for i := range 5 {
		at := v.from.Add(step/2 + time.Duration(i)*step)
		c.text(x(float64(at.UnixMilli())/1000), plot.y+plot.h+15, `text-anchor="middle" font-size="11" fill="#666"`, at.UTC().Format(time.TimeOnly))
	}

	// Stacked areas reach down to zero, so the uppermost is drawn first.
	order := slices.Clone(all)
	if stacked {
		slices.Reverse(order)
	}
	for _, s := range order {
		i := slices.IndexFunc(all, func(o shown) bool { return o.name == s.name && o.target == s.target })
		color, look, fill := p.color(s.name, i), "", custom.FillOpacity/100
		if p.property(s.name, "custom.lineStyle") != nil {
			look, fill = ` stroke-dasharray="6 6"`, 0
		}
		if stacked {
			fill = 1
		}
		for _, run := range runs(s.points, v.interval) {
			line := path(run, x, y, custom.LineInterpolation == "stepAfter")
			if fill > 0 {
				c.say(`<path d="%sV%.1fH%.1fZ" fill="%s" fill-opacity="%.2f"/>`, line, y(0), x(run[0].at), color, fill)
			}
			c.say(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5"%s/>`, line, color, look)
		}
	}
	at := plot.x
	for i, s := range all {
		c.say(`<rect x="%.1f" y="%.1f" width="12" height="4" fill="%s"/>`, at, b.y+b.h-7, p.color(s.name, i))
		c.text(at+16, b.y+b.h-1, `font-size="11"`, s.name)
		at += 30 + 6.2*float64(len(s.name))
	}
}

// runs splits points at gaps.
func runs(points []point, interval time.Duration) [][]point {
	var all [][]point
	for i, p := range points {
		if i == 0 || p.at-points[i-1].at > 1.5*interval.Seconds() {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], p)
	}
	return all
}

// path is the line through the points, without the inner points of horizontal
// parts.
func path(points []point, x, y func(float64) float64, steps bool) string {
	var b strings.Builder
	for i, p := range points {
		level := i > 0 && i+1 < len(points) && points[i-1].value == p.value && points[i+1].value == p.value
		switch {
		case i == 0:
			fmt.Fprintf(&b, "M%.1f %.1f", x(p.at), y(p.value))
		case level:
		case steps:
			fmt.Fprintf(&b, "H%.1fV%.1f", x(p.at), y(p.value))
		default:
			fmt.Fprintf(&b, "L%.1f %.1f", x(p.at), y(p.value))
		}
	}
	if len(points) == 1 {
		b.WriteString("h1")
	}
	return b.String()
}

// niceStep divides an axis that ends at top into three to five parts.
func niceStep(top float64) float64 {
	if top <= 0 {
		return 1
	}
	size := math.Pow(10, math.Floor(math.Log10(top/3)))
	for _, factor := range []float64{1, 2, 2.5, 5, 10} {
		if top/(factor*size) <= 5 {
			return factor * size
		}
	}
	return 10 * size
}
