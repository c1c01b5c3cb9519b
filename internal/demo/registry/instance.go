package registry

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The statuses of an instance (InstanceInfo.InstanceStatus).
const (
	Up           = "UP"
	Down         = "DOWN"
	Starting     = "STARTING"
	OutOfService = "OUT_OF_SERVICE"
	Unknown      = "UNKNOWN"
)

// The server's last action on an instance (InstanceInfo.ActionType).
const (
	added    = "ADDED"
	modified = "MODIFIED"
	deleted  = "DELETED"
)

// Instance is Eureka's InstanceInfo, as its clients send and read it.
type Instance struct {
	XMLName    xml.Name   `json:"-" xml:"instance"`
	InstanceID string     `json:"instanceId" xml:"instanceId"`
	HostName   string     `json:"hostName" xml:"hostName"`
	App        string     `json:"app" xml:"app"`
	IPAddr     string     `json:"ipAddr" xml:"ipAddr"`
	Status     string     `json:"status" xml:"status"`
	Overridden string     `json:"overriddenStatus" xml:"overriddenstatus"`
	Port       Port       `json:"port" xml:"port"`
	SecurePort Port       `json:"securePort" xml:"securePort"`
	CountryID  int        `json:"countryId" xml:"countryId"`
	DataCenter DataCenter `json:"dataCenterInfo" xml:"dataCenterInfo"`
	Lease      Lease      `json:"leaseInfo" xml:"leaseInfo"`
	Metadata   Metadata   `json:"metadata" xml:"metadata"`
	HomePage   string     `json:"homePageUrl,omitempty" xml:"homePageUrl,omitempty"`
	StatusPage string     `json:"statusPageUrl,omitempty" xml:"statusPageUrl,omitempty"`
	Health     string     `json:"healthCheckUrl,omitempty" xml:"healthCheckUrl,omitempty"`
	VIP        string     `json:"vipAddress,omitempty" xml:"vipAddress,omitempty"`
	SecureVIP  string     `json:"secureVipAddress,omitempty" xml:"secureVipAddress,omitempty"`
	// Coordinating is always false: a discovery server is its own client.
	Coordinating string `json:"isCoordinatingDiscoveryServer" xml:"isCoordinatingDiscoveryServer"`
	Updated      Millis `json:"lastUpdatedTimestamp" xml:"lastUpdatedTimestamp"` // by the server's clock
	Dirty        Millis `json:"lastDirtyTimestamp" xml:"lastDirtyTimestamp"`     // by the app's clock
	Action       string `json:"actionType" xml:"actionType"`
}

// id returns the instance's id. Old clients send no instanceId.
func (i *Instance) id() string {
	if i.InstanceID == "" {
		return i.HostName
	}
	return i.InstanceID
}

// check returns an error if a registration is incomplete, by the rules of the
// server's ApplicationResource.
func (i *Instance) check() error {
	switch {
	case i.id() == "":
		return errors.New("instanceId is missing")
	case i.HostName == "":
		return errors.New("hostName is missing")
	case i.IPAddr == "":
		return errors.New("ipAddr is missing")
	case i.App == "":
		return errors.New("app is missing")
	case i.DataCenter.Name == "":
		return errors.New("the name in dataCenterInfo is missing")
	}
	return nil
}

// Port is a port and whether it is in use.
type Port struct {
	Number  Int    `json:"$" xml:",chardata"`
	Enabled string `json:"@enabled" xml:"enabled,attr"`
}

// DataCenter says where an instance runs; outside of Amazon it is "MyOwn".
type DataCenter struct {
	Class string `json:"@class" xml:"class,attr"`
	Name  string `json:"name" xml:"name"`
}

// Lease holds an instance's times: seconds for the first two, milliseconds
// since 1970 for the others.
type Lease struct {
	Renewal      int   `json:"renewalIntervalInSecs" xml:"renewalIntervalInSecs"`
	Duration     int   `json:"durationInSecs" xml:"durationInSecs"`
	Registration int64 `json:"registrationTimestamp" xml:"registrationTimestamp"`
	LastRenewal  int64 `json:"lastRenewalTimestamp" xml:"lastRenewalTimestamp"`
	Eviction     int64 `json:"evictionTimestamp" xml:"evictionTimestamp"`
	ServiceUp    int64 `json:"serviceUpTimestamp" xml:"serviceUpTimestamp"`
}

// Metadata holds the app's own entries.
type Metadata map[string]string

// xmlName matches valid element names. Java's clients add "@class", which the real
// server does not write in XML either.
var xmlName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// MarshalXML writes an element for each entry with a valid name.
func (m Metadata) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !xmlName.MatchString(key) {
			continue
		}
		if err := e.EncodeElement(m[key], xml.StartElement{Name: xml.Name{Local: key}}); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

// Int is a number that some clients send as a string.
type Int int64

// UnmarshalJSON accepts a number, or a string that contains one.
func (n *Int) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "" || text == "null" {
		return nil
	}
	value, err := strconv.ParseInt(text, 10, 64)
	*n = Int(value)
	return err
}

// Millis is a time in milliseconds since 1970. In JSON it is a string.
type Millis int64

// UnmarshalJSON accepts the same as that of Int.
func (m *Millis) UnmarshalJSON(b []byte) error { return (*Int)(m).UnmarshalJSON(b) }

// MarshalJSON writes a string.
func (m Millis) MarshalJSON() ([]byte, error) { return json.Marshal(strconv.FormatInt(int64(m), 10)) }
