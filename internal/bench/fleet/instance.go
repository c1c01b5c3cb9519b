package fleet

import (
	"fmt"
	"strings"
)

// The functions below write instances as Spring Cloud's server does, field by
// field, so that sizes are correct. The package's test compares them with a real
// server's.

func (p pod) fields(e *Eureka, app string, n int) (ip, status, override, action string, port int, updated int64) {
	if app == "ORDERS" && n == 0 {
		action = "ADDED"
		if p.override != "UNKNOWN" {
			action = "MODIFIED"
		}
		if p.cancelled {
			action = "DELETED"
		}
		return "127.0.0.1", p.status, p.override, action, e.port, p.updated.UnixMilli()
	}
	return fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255), "UP", "UNKNOWN", "ADDED", 8080, p.updated.UnixMilli() - 1e7
}

func (p pod) json(e *Eureka, app string, n int) string {
	ip, status, override, action, port, updated := p.fields(e, app, n)
	lower := strings.ToLower(app)
	return fmt.Sprintf(`{"instanceId":"%[1]s-%[2]d.cluster.local:%[1]s:%[3]d","hostName":"%[4]s","app":"%[5]s","ipAddr":"%[4]s","status":"%[6]s","overriddenStatus":"%[7]s","port":{"$":%[3]d,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"leaseInfo":{"renewalIntervalInSecs":30,"durationInSecs":90,"registrationTimestamp":%[8]d,"lastRenewalTimestamp":%[8]d,"evictionTimestamp":0,"serviceUpTimestamp":%[8]d},"metadata":{"management.port":"8081","version":"1.2.3","zone":"a"},"homePageUrl":"http://%[4]s:%[3]d/","statusPageUrl":"http://%[4]s:8081/actuator/info","healthCheckUrl":"http://%[4]s:8081/actuator/health","vipAddress":"%[1]s","secureVipAddress":"%[1]s","isCoordinatingDiscoveryServer":"false","lastUpdatedTimestamp":"%[8]d","lastDirtyTimestamp":"%[8]d","actionType":"%[9]s"}`,
		lower, n, port, ip, app, status, override, updated, action)
}

type apps = []struct {
	name string
	n    int
}

// present reports whether a list contains the instance. Cancelled instances are
// only in the list of changes.
func (p pod) present(root, app string, n, of int) bool {
	return !p.cancelled || app != "ORDERS" || n > 0 || root == "applications" && of == 1
}

func (p pod) jsonList(e *Eureka, out *strings.Builder, root string, all apps) {
	list := func(name string, n int) {
		fmt.Fprintf(out, `{"name":"%s","instance":[`, name)
		comma := ""
		for i := range n {
			if p.present(root, name, i, n) {
				out.WriteString(comma + p.json(e, name, i))
				comma = ","
			}
		}
		out.WriteString("]}")
	}
	if root == "application" {
		out.WriteString(`{"application":`)
		list(all[0].name, all[0].n)
		out.WriteString("}")
		return
	}
	out.WriteString(`{"applications":{"versions__delta":"1","apps__hashcode":"UP_1_","application":[`)
	comma := ""
	for _, a := range all {
		if a.n > 0 {
			out.WriteString(comma)
			list(a.name, a.n)
			comma = ","
		}
	}
	out.WriteString("]}}")
}

func (p pod) xml(e *Eureka, out *strings.Builder, root string, all apps) {
	list := func(name string, n int) {
		fmt.Fprintf(out, "<application>\n    <name>%s</name>\n", name)
		for i := range n {
			if p.present(root, name, i, n) {
				ip, status, override, action, port, updated := p.fields(e, name, i)
				fmt.Fprintf(out, "    <instance>\n      <instanceId>%[1]s-%[2]d.cluster.local:%[1]s:%[3]d</instanceId>\n      <hostName>%[4]s</hostName>\n      <app>%[5]s</app>\n      <ipAddr>%[4]s</ipAddr>\n      <status>%[6]s</status>\n      <overriddenstatus>%[7]s</overriddenstatus>\n      <port enabled=\"true\">%[3]d</port>\n      <securePort enabled=\"false\">443</securePort>\n      <countryId>1</countryId>\n      <dataCenterInfo class=\"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo\">\n        <name>MyOwn</name>\n      </dataCenterInfo>\n      <leaseInfo>\n        <renewalIntervalInSecs>30</renewalIntervalInSecs>\n        <durationInSecs>90</durationInSecs>\n        <registrationTimestamp>%[8]d</registrationTimestamp>\n        <lastRenewalTimestamp>%[8]d</lastRenewalTimestamp>\n        <evictionTimestamp>0</evictionTimestamp>\n        <serviceUpTimestamp>%[8]d</serviceUpTimestamp>\n      </leaseInfo>\n      <metadata>\n        <management.port>8081</management.port>\n        <version>1.2.3</version>\n        <zone>a</zone>\n      </metadata>\n      <homePageUrl>http://%[4]s:%[3]d/</homePageUrl>\n      <statusPageUrl>http://%[4]s:8081/actuator/info</statusPageUrl>\n      <healthCheckUrl>http://%[4]s:8081/actuator/health</healthCheckUrl>\n      <vipAddress>%[1]s</vipAddress>\n      <secureVipAddress>%[1]s</secureVipAddress>\n      <isCoordinatingDiscoveryServer>false</isCoordinatingDiscoveryServer>\n      <lastUpdatedTimestamp>%[8]d</lastUpdatedTimestamp>\n      <lastDirtyTimestamp>%[8]d</lastDirtyTimestamp>\n      <actionType>%[9]s</actionType>\n    </instance>\n",
					strings.ToLower(name), i, port, ip, name, status, override, updated, action)
			}
		}
		out.WriteString("  </application>\n")
	}
	if root == "application" {
		list(all[0].name, all[0].n)
		indented := out.String()
		out.Reset()
		out.WriteString(strings.ReplaceAll(indented, "\n  ", "\n"))
		return
	}
	out.WriteString("<applications>\n  <versions__delta>1</versions__delta>\n  <apps__hashcode>UP_1_</apps__hashcode>\n")
	for _, a := range all {
		if a.n > 0 {
			list(a.name, a.n)
		}
	}
	out.WriteString("</applications>\n")
}
