// Command prometheus reads the text of a scrape as Prometheus' own library does, lints it as promtool does, and
// prints its samples as JSON, each under its name. With a file of rules it reads a scenario instead, and prints the
// alerts that fire at its end.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func main() {
	read := run
	if len(os.Args) > 1 {
		read = func(in io.Reader, out io.Writer) error { return fire(os.Args[1], in, out) }
	}
	if err := read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type sample struct {
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

func run(in io.Reader, out io.Writer) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil {
		return err
	}
	for _, problem := range problems {
		return fmt.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return err
	}
	samples := map[string][]sample{}
	for name, family := range families {
		for _, metric := range family.Metric {
			samples[name] = append(samples[name], read(metric))
		}
	}
	return json.NewEncoder(out).Encode(samples)
}

// read takes the count of a histogram for its value.
func read(metric *dto.Metric) sample {
	labels := map[string]string{}
	for _, label := range metric.Label {
		labels[label.GetName()] = label.GetValue()
	}
	switch {
	case metric.Counter != nil:
		return sample{labels, metric.Counter.GetValue()}
	case metric.Gauge != nil:
		return sample{labels, metric.Gauge.GetValue()}
	case metric.Histogram != nil:
		return sample{labels, float64(metric.Histogram.GetSampleCount())}
	default:
		return sample{labels, metric.Untyped.GetValue()}
	}
}
