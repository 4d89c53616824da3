package main

import (
	"fmt"

	admission "k8s.io/api/admission/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
)

var (
	reviewKind = admission.SchemeGroupVersion.WithKind("AdmissionReview")
	podKind    = core.SchemeGroupVersion.WithKind("Pod")
	decoder    = newDecoder()
)

// newDecoder is the one that the API server reads JSON by.
func newDecoder() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{admission.AddToScheme, core.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{})
}

// A review as the API server's own types have it.
type reviewed struct {
	// Why it is none; empty: it is one, of a pod where that is what is created.
	Refused string `json:"refused"`
	// It creates a pod.
	Creates bool `json:"creates"`
	// One of the selectors that it was asked by matches.
	Matches bool              `json:"matches"`
	DryRun  bool              `json:"dryRun"`
	UID     string            `json:"uid"`
	Labels  map[string]string `json:"labels"`
	// What its volumes are filled from, in their order: volume, source (-1: none), name, optional.
	Secrets []secret `json:"secrets"`
}

type secret struct {
	Volume   int    `json:"volume"`
	Source   int    `json:"source"`
	Name     string `json:"name"`
	Optional bool   `json:"optional"`
}

// review reads it, and asks the selectors.
func review(body []byte, selectors []string) (told reviewed) {
	refuse := func(err error) reviewed { return reviewed{Refused: err.Error()} }
	read := &admission.AdmissionReview{}
	if err := decode(body, reviewKind, read); err != nil {
		return refuse(err)
	}
	request := read.Request
	if request == nil {
		return refuse(fmt.Errorf("no request"))
	}
	told.UID = string(request.UID)
	told.DryRun = request.DryRun != nil && *request.DryRun
	isPod := request.Resource.Group == "" && request.Resource.Resource == "pods" && request.SubResource == ""
	told.Creates = isPod && request.Operation == admission.Create
	if !told.Creates {
		return told
	}
	pod := &core.Pod{}
	if err := decode(request.Object.Raw, podKind, pod); err != nil {
		return refuse(err)
	}
	told.Labels = pod.Labels
	told.Secrets = secrets(pod)
	for _, text := range selectors {
		selector, err := labels.Parse(text)
		if err != nil {
			return refuse(err)
		}
		told.Matches = told.Matches || selector.Matches(labels.Set(pod.Labels))
	}
	return told
}

func decode(data []byte, kind schema.GroupVersionKind, into runtime.Object) error {
	_, found, err := decoder.Decode(data, &kind, into)
	if err == nil && *found != kind {
		err = fmt.Errorf("it is %v", found)
	}
	return err
}

func secrets(pod *core.Pod) (found []secret) {
	optional := func(value *bool) bool { return value != nil && *value }
	for index, volume := range pod.Spec.Volumes {
		if one := volume.Secret; one != nil {
			found = append(found, secret{index, -1, one.SecretName, optional(one.Optional)})
		}
		if volume.Projected == nil {
			continue
		}
		for at, source := range volume.Projected.Sources {
			if one := source.Secret; one != nil {
				found = append(found, secret{index, at, one.Name, optional(one.Optional)})
			}
		}
	}
	return found
}

// A selector as kubectl has it.
type selected struct {
	// Why it is none; empty: it is one.
	Refused string `json:"refused"`
	All     bool   `json:"all"`
	Matches bool   `json:"matches"`
}

func selects(text string, of map[string]string) selected {
	selector, err := labels.Parse(text)
	if err != nil {
		return selected{Refused: err.Error()}
	}
	return selected{All: selector.Empty(), Matches: selector.Matches(labels.Set(of))}
}
