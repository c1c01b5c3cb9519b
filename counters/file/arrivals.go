package file

// ReportsArrivals returns false: the file holds only what is in flight. Work
// that comes and goes between two readings is not seen.
func (c *Counter) ReportsArrivals() bool { return false }
