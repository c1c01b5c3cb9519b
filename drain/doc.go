// Package drain is the one state machine of Lastcall: the phases, the budget
// that caps them, the timeline and the report.
package drain
