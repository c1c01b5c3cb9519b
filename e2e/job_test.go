package e2e

import (
	"context"
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A native sidecar does not prevent the completion of a Job.
func TestJob(t *testing.T) {
	s := start(t)
	_, err := s.client.BatchV1().Jobs(s.namespace).Create(s.ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "work"},
		Spec:       jobSpec(),
	}, metav1.CreateOptions{})
	s.must("creating a Job", err)
	s.complete("work")
}

// A native sidecar does not prevent the completion of a CronJob's Jobs. The first Job
// starts within a minute.
func TestCronJob(t *testing.T) {
	s := start(t)
	_, err := s.client.BatchV1().CronJobs(s.namespace).Create(s.ctx, &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "work"},
		Spec: batchv1.CronJobSpec{
			Schedule:          "* * * * *",
			ConcurrencyPolicy: batchv1.ForbidConcurrent,
			JobTemplate:       batchv1.JobTemplateSpec{Spec: jobSpec()},
		},
	}, metav1.CreateOptions{})
	s.must("creating a CronJob", err)
	var job string
	s.eventually("the CronJob's first Job", func(ctx context.Context) (bool, error) {
		jobs, err := s.client.BatchV1().Jobs(s.namespace).List(ctx, metav1.ListOptions{})
		if err != nil || len(jobs.Items) == 0 {
			return false, err
		}
		job = jobs.Items[0].Name
		return true, nil
	})
	s.complete(job)
}

func jobSpec() batchv1.JobSpec {
	a := app{name: "work", variant: native}
	pod := a.podSpec()
	pod.RestartPolicy = corev1.RestartPolicyNever
	work := &pod.Containers[0]
	work.Args = []string{"job", "-for", "2s"}
	work.Ports, work.ReadinessProbe, work.Lifecycle = nil, nil, nil
	return batchv1.JobSpec{
		BackoffLimit: new(int32(0)),
		Template:     corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": a.name}}, Spec: pod},
	}
}

// complete waits until a Job is complete, and checks that its pod's containers ended with
// exit code 0 and were not restarted.
func (s *scenario) complete(name string) {
	s.Helper()
	s.eventually("the Job is complete", func(ctx context.Context) (bool, error) {
		job, err := s.client.BatchV1().Jobs(s.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, c := range job.Status.Conditions {
			if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
				s.Fatalf("the Job failed: %s", c.Message)
			}
		}
		return job.Status.Succeeded == 1, nil
	})
	var of []*corev1.Pod
	s.waitForPods("the Job's pod has ended", func(pods []*corev1.Pod) bool {
		of = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return p.Labels[batchv1.JobNameLabel] != name })
		return len(of) == 1 && of[0].Status.Phase == corev1.PodSucceeded
	})
	for _, p := range of {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if ended := c.State.Terminated; ended == nil || ended.ExitCode != 0 || c.RestartCount != 0 {
				s.Errorf("%s: container %s ended %+v after %d restarts, want exit code 0 and none", p.Name, c.Name, ended, c.RestartCount)
			}
		}
	}
}
