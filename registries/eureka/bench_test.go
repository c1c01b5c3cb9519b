package eureka

import (
	"fmt"
	"strings"
	"testing"
)

// A registry of 5,000 instances, which is large, is read once as JSON and once
// as XML. Withdrawn does that for each server, once the instance is gone from
// the shorter answers.
func BenchmarkLargeRegistry(b *testing.B) {
	const instances = 5000
	json, xml := strings.Builder{}, strings.Builder{}
	json.WriteString(`{"applications":{"versions__delta":"1","apps__hashcode":"UP_5000_","application":[{"name":"ORDERS","instance":[`)
	xml.WriteString("<applications><application><name>ORDERS</name>")
	for n := range instances {
		if n > 0 {
			json.WriteString(",")
		}
		fmt.Fprintf(&json, `{"instanceId":"pod-%d:orders:8080","hostName":"pod-%[1]d","app":"ORDERS","ipAddr":"10.0.0.1","status":"UP","overriddenStatus":"UNKNOWN","port":{"$":8080,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"leaseInfo":{"renewalIntervalInSecs":30,"durationInSecs":90,"registrationTimestamp":1795247835545,"lastRenewalTimestamp":1795247835545,"evictionTimestamp":0,"serviceUpTimestamp":1795247835546},"metadata":{"management.port":"8080"},"homePageUrl":"http://pod-%[1]d:8080/","statusPageUrl":"http://pod-%[1]d:8080/actuator/info","healthCheckUrl":"http://pod-%[1]d:8080/actuator/health","vipAddress":"orders","secureVipAddress":"orders","isCoordinatingDiscoveryServer":"false","lastUpdatedTimestamp":"1795247835546","lastDirtyTimestamp":"1795247835483","actionType":"ADDED"}`, n)
		fmt.Fprintf(&xml, "<instance>\n  <instanceId>pod-%d:orders:8080</instanceId>\n  <hostName>pod-%[1]d</hostName>\n  <app>ORDERS</app>\n  <ipAddr>10.0.0.1</ipAddr>\n  <status>UP</status>\n  <overriddenstatus>UNKNOWN</overriddenstatus>\n  <port enabled=\"true\">8080</port>\n  <securePort enabled=\"false\">443</securePort>\n  <countryId>1</countryId>\n  <dataCenterInfo class=\"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo\">\n    <name>MyOwn</name>\n  </dataCenterInfo>\n  <leaseInfo>\n    <renewalIntervalInSecs>30</renewalIntervalInSecs>\n    <durationInSecs>90</durationInSecs>\n    <registrationTimestamp>1795247835545</registrationTimestamp>\n    <lastRenewalTimestamp>1795247835545</lastRenewalTimestamp>\n  </leaseInfo>\n  <metadata><management.port>8080</management.port></metadata>\n  <homePageUrl>http://pod-%[1]d:8080/</homePageUrl>\n  <vipAddress>orders</vipAddress>\n  <lastUpdatedTimestamp>1795247835546</lastUpdatedTimestamp>\n  <actionType>ADDED</actionType>\n</instance>\n", n)
	}
	json.WriteString("]}]}}")
	xml.WriteString("</application></applications>")
	b.ReportAllocs()
	b.SetBytes(int64(json.Len() + xml.Len()))
	for b.Loop() {
		seen := 0
		count := func(instance) bool { seen++; return true }
		if err := scanJSON(strings.NewReader(json.String()), "applications", count); err != nil {
			b.Fatal(err)
		}
		if err := scanXML(strings.NewReader(xml.String()), "applications", count); err != nil {
			b.Fatal(err)
		}
		if seen != 2*instances {
			b.Fatalf("saw %d instances", seen)
		}
	}
}
