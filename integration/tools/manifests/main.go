// manifests decodes Kubernetes manifests into the API's own types, strictly: an unknown key, a key
// given twice or a value of another type is an error.
package main

import (
	"bytes"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func decode(document []byte) (string, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return "", err
	}
	objects := map[string]any{
		"apps/v1 DaemonSet":           &appsv1.DaemonSet{},
		"node.k8s.io/v1 RuntimeClass": &nodev1.RuntimeClass{},
		"v1 Pod":                      &corev1.Pod{},
	}
	name := kind.APIVersion + " " + kind.Kind
	object, known := objects[name]
	if !known {
		return name, fmt.Errorf("%s is not known here", name)
	}
	return name, yaml.UnmarshalStrict(document, object)
}

func main() {
	failed := false
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			name, err := decode(document)
			if err != nil {
				failed = true
				fmt.Fprintf(os.Stderr, "%s: %s: %v\n", path, name, err)
				continue
			}
			fmt.Printf("%s: %s\n", path, name)
		}
	}
	if failed {
		os.Exit(1)
	}
}
