package buildtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/xferbench/xferbench/internal/testenv"
)

// The part of Kubernetes' objects that deploy/ uses. Documents are read
// strictly: a key that stands here in another spelling, or at another depth,
// is an error, as it would be for the API server's own validation.
type (
	object struct {
		APIVersion string            `yaml:"apiVersion"`
		Kind       string            `yaml:"kind"`
		Metadata   metadata          `yaml:"metadata"`
		Spec       spec              `yaml:"spec"`
		Data       map[string]string `yaml:"data"`
	}
	metadata struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	}
	spec struct {
		// Service
		ClusterIP string        `yaml:"clusterIP"`
		Ports     []servicePort `yaml:"ports"`
		// Service and Deployment: a label map, or matchLabels in one
		Selector map[string]any `yaml:"selector"`
		// Deployment
		Replicas int `yaml:"replicas"`
		Strategy struct {
			Type string `yaml:"type"`
		} `yaml:"strategy"`
		// Job
		BackoffLimit          int `yaml:"backoffLimit"`
		ActiveDeadlineSeconds int `yaml:"activeDeadlineSeconds"`
		// Deployment and Job
		Template struct {
			Metadata metadata `yaml:"metadata"`
			Spec     podSpec  `yaml:"spec"`
		} `yaml:"template"`
	}
	servicePort struct {
		Name string `yaml:"name"`
		Port int    `yaml:"port"`
	}
	podSpec struct {
		AutomountServiceAccountToken *bool       `yaml:"automountServiceAccountToken"`
		RestartPolicy                string      `yaml:"restartPolicy"`
		Affinity                     affinity    `yaml:"affinity"`
		Containers                   []container `yaml:"containers"`
		Volumes                      []volume    `yaml:"volumes"`
	}
	affinity struct {
		PodAffinity     affinityTerms `yaml:"podAffinity"`
		PodAntiAffinity affinityTerms `yaml:"podAntiAffinity"`
	}
	affinityTerms struct {
		Required []struct {
			TopologyKey   string `yaml:"topologyKey"`
			LabelSelector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			} `yaml:"labelSelector"`
		} `yaml:"requiredDuringSchedulingIgnoredDuringExecution"`
	}
	container struct {
		Name  string   `yaml:"name"`
		Image string   `yaml:"image"`
		Args  []string `yaml:"args"`
		Ports []struct {
			Name          string `yaml:"name"`
			ContainerPort int    `yaml:"containerPort"`
		} `yaml:"ports"`
		ReadinessProbe struct {
			TCPSocket struct {
				Port string `yaml:"port"`
			} `yaml:"tcpSocket"`
			PeriodSeconds int `yaml:"periodSeconds"`
		} `yaml:"readinessProbe"`
		SecurityContext struct {
			Capabilities struct {
				Add []string `yaml:"add"`
			} `yaml:"capabilities"`
		} `yaml:"securityContext"`
		Resources struct {
			Requests map[string]string `yaml:"requests"`
			Limits   map[string]string `yaml:"limits"`
		} `yaml:"resources"`
		VolumeMounts []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	volume struct {
		Name   string `yaml:"name"`
		Secret struct {
			SecretName  string `yaml:"secretName"`
			DefaultMode int    `yaml:"defaultMode"`
		} `yaml:"secret"`
		EmptyDir struct {
			Medium    string `yaml:"medium"`
			SizeLimit string `yaml:"sizeLimit"`
		} `yaml:"emptyDir"`
	}
)

// manifests decodes each document by itself: an anchor does not reach from one
// into the next.
func manifests(content []byte) (objects []object, err error) {
	for i, document := range bytes.Split(content, []byte("\n---\n")) {
		var o object
		dec := yaml.NewDecoder(bytes.NewReader(document), yaml.Strict())
		if err := dec.Decode(&o); err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if err := dec.Decode(&o); !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("document %d: more than one object in it", i+1)
		}
		if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
			return nil, fmt.Errorf("document %d: lacks apiVersion, kind or metadata.name", i+1)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func TestManifestsAreStrict(t *testing.T) {
	tests := map[string]string{
		"unknown key":             "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  clusterIp: None\n",
		"key at the wrong depth":  "apiVersion: v1\nkind: Service\nname: a\n",
		"anchor of another":       "apiVersion: v1\nkind: A\nmetadata: &m\n  name: a\n---\napiVersion: v1\nkind: A\nmetadata: *m\n",
		"key twice":               "apiVersion: v1\nkind: A\nkind: B\nmetadata:\n  name: a\n",
		"number where text is":    "apiVersion: v1\nkind: A\nmetadata:\n  name: [1]\n",
		"no name":                 "apiVersion: v1\nkind: A\n",
		"tab instead of a column": "apiVersion: v1\nkind: A\nmetadata:\n\tname: a\n",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if objects, err := manifests([]byte(text)); err == nil {
				t.Errorf("accepted as %+v", objects)
			}
		})
	}
}

func TestKubernetesPair(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(checkout(t), "deploy/kubernetes/pair.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifests(content)
	if err != nil {
		t.Fatal(err)
	}
	byKind := map[string]object{}
	for _, o := range objects {
		byKind[o.Kind] = o
	}
	service, target, job := byKind["Service"], byKind["Deployment"], byKind["Job"]
	if len(objects) != 3 || service.Kind == "" || target.Kind == "" || job.Kind == "" {
		t.Fatalf("want one Service, one Deployment and one Job, have %d objects", len(objects))
	}

	labels := target.Spec.Template.Metadata.Labels
	for key, value := range service.Spec.Selector {
		if labels[key] != value {
			t.Errorf("the service selects %s=%v, the target's pod has %q", key, value, labels[key])
		}
	}
	if len(service.Spec.Selector) == 0 || service.Spec.ClusterIP != "None" {
		t.Error("the service must be headless and select the target: transports need the pod's own address")
	}
	terms := job.Spec.Template.Spec.Affinity.PodAntiAffinity.Required
	if len(terms) != 1 || terms[0].TopologyKey != "kubernetes.io/hostname" {
		t.Fatal("the initiator must not run on the target's node: EFA goes over shared memory there")
	}
	for key, value := range terms[0].LabelSelector.MatchLabels {
		if labels[key] != value {
			t.Errorf("the initiator keeps away from %s=%s, the target's pod has %q", key, value, labels[key])
		}
	}

	for _, o := range []object{target, job} {
		pod := o.Spec.Template.Spec
		if len(pod.Containers) != 1 {
			t.Fatalf("%s: %d containers", o.Kind, len(pod.Containers))
		}
		c := pod.Containers[0]
		if !slices.Contains(c.SecurityContext.Capabilities.Add, "IPC_LOCK") {
			t.Errorf("%s: no IPC_LOCK, so memory cannot be registered", o.Kind)
		}
		// Kubernetes refuses extended resources and huge pages that differ in requests and limits.
		for _, resource := range []string{"vpc.amazonaws.com/efa", "hugepages-2Mi", "memory"} {
			if r, l := c.Resources.Requests[resource], c.Resources.Limits[resource]; r == "" || r != l {
				t.Errorf("%s: %s: requests %q, limits %q; want the same in both", o.Kind, resource, r, l)
			}
		}
		for _, mount := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Volumes, func(v volume) bool { return v.Name == mount.Name }) {
				t.Errorf("%s: mounts %q, which is no volume", o.Kind, mount.Name)
			}
		}
		for _, v := range pod.Volumes {
			if v.Secret.SecretName != "" && v.Secret.DefaultMode != 0o400 {
				t.Errorf("%s: the secret's files have mode %04o, which xferbench refuses", o.Kind, v.Secret.DefaultMode)
			}
		}
		if !slices.Contains(c.Args, "--secret-file=/etc/xferbench/secret") {
			t.Errorf("%s: the two sides do not share the secret: %v", o.Kind, c.Args)
		}
	}
	port := service.Spec.Ports[0].Port
	if c := target.Spec.Template.Spec.Containers[0]; !slices.Contains(c.Args, fmt.Sprintf("--listen=0.0.0.0:%d", port)) {
		t.Errorf("the target does not listen on the service's port %d: %v", port, c.Args)
	}
	if c := job.Spec.Template.Spec.Containers[0]; !slices.Contains(c.Args, fmt.Sprintf("%s:%d", service.Metadata.Name, port)) {
		t.Errorf("the initiator does not call the service %s:%d: %v", service.Metadata.Name, port, c.Args)
	}
}

// TestDeployFlags runs each xferbench command line of deploy/ as far as its
// flags: --help after them prints help only if the flags before it are known.
func TestDeployFlags(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(checkout(t), "deploy/kubernetes/pair.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifests(content)
	if err != nil {
		t.Fatal(err)
	}
	program := built(t)
	lines := map[string][]string{
		"rank 0": {"--secret-file", "f", "--provider", "efa", "--size", "438MB", "node:1"},
		"rank 1": {"serve", "--once", "--secret-file", "f", "--listen", "0.0.0.0:0"},
	}
	for _, o := range objects {
		for _, c := range o.Spec.Template.Spec.Containers {
			lines[o.Kind] = c.Args
		}
	}
	for name, args := range lines {
		t.Run(name, func(t *testing.T) {
			out := run(t, exec.CommandContext(within(t, time.Minute), program, append(slices.Clone(args), "--help")...))
			if !strings.Contains(out, "Usage:") {
				t.Errorf("xferbench %v prints no help:\n%s", args, out)
			}
		})
	}
}

// built compiles the program into the test's folder.
func built(t *testing.T) string {
	t.Helper()
	testenv.NeedTool(t, "cc")
	program := filepath.Join(t.TempDir(), "xferbench")
	cmd := exec.CommandContext(within(t, 5*time.Minute), "go", "build", "-o", program, "./cmd/xferbench")
	cmd.Dir = checkout(t)
	run(t, cmd)
	return program
}

// TestRanks starts both ranks as srun and mpirun would, on this host.
func TestRanks(t *testing.T) {
	program := built(t)
	script := filepath.Join(checkout(t), "deploy/rank.sh")
	for _, variable := range []string{"SLURM_PROCID", "OMPI_COMM_WORLD_RANK"} {
		t.Run(variable, func(t *testing.T) {
			job := t.TempDir()
			if err := os.WriteFile(filepath.Join(job, "secret"), []byte("a secret of the two ranks of this test"), 0o600); err != nil {
				t.Fatal(err)
			}
			rank := func(n int) *exec.Cmd {
				cmd := exec.CommandContext(within(t, 2*time.Minute), "bash", script, "--provider", "socket", "--size", "1MB",
					"--budget", "1s", "--no-ceiling", "--no-record")
				cmd.Env = append(os.Environ(), "XFERBENCH="+program, "XFERBENCH_JOB="+job, "XFERBENCH_LISTEN=127.0.0.1:0",
					fmt.Sprintf("%s=%d", variable, n))
				return cmd
			}
			serve := rank(1)
			var stderr bytes.Buffer
			serve.Stderr = &stderr
			if err := serve.Start(); err != nil {
				t.Fatal(err)
			}
			out, err := rank(0).CombinedOutput()
			if err != nil {
				if killErr := serve.Process.Kill(); killErr != nil {
					t.Error(killErr)
				}
				t.Errorf("rank 0: %v\n%s", err, out)
			}
			if waitErr := serve.Wait(); waitErr != nil && err == nil {
				t.Errorf("rank 1: %v\n%s", waitErr, stderr.Bytes())
			}
			if err == nil && !strings.Contains(string(out), "socket") {
				t.Errorf("rank 0 prints no row:\n%s", out)
			}
		})
	}
	t.Run("without a rank", func(t *testing.T) {
		cmd := exec.CommandContext(within(t, time.Minute), "bash", script)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XFERBENCH_JOB=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "srun or mpirun") {
			t.Errorf("got %v, want exit status 2 and advice:\n%s", err, out)
		}
	})
}

func TestDockerfile(t *testing.T) {
	root := checkout(t)
	get := exec.CommandContext(within(t, 5*time.Minute), filepath.Join(root, "scripts/pinned.sh"), "hadolint")
	var stderr strings.Builder
	get.Stderr = &stderr
	linter, err := get.Output()
	if err != nil {
		err = fmt.Errorf("scripts/pinned.sh hadolint: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	testenv.Need(t, "hadolint", err)
	program := strings.TrimSpace(string(linter))
	if out := run(t, exec.CommandContext(within(t, time.Minute), program, filepath.Join(root, "deploy/Dockerfile"))); out != "" {
		t.Errorf("hadolint says:\n%s", out)
	}
	bad := filepath.Join(t.TempDir(), "Dockerfile")
	if err := os.WriteFile(bad, []byte("FROM ubuntu\nRUN cd /tmp | true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(within(t, time.Minute), program, bad).Run(); err == nil {
		t.Error("hadolint accepts an untagged base and a pipe without pipefail: this test sees nothing")
	}
}
