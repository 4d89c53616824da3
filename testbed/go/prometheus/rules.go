package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

// Between two evaluations, and between two samples of what is loaded.
const interval = time.Minute

type scenario struct {
	// Prometheus' notation of test series, one a line: a series, and its samples a minute apart.
	Series []string `json:"series"`
	// How long it goes on.
	Minutes int `json:"minutes"`
}

type alert struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// fire evaluates the rules of a file, as `promtool test rules` does, and tells the alerts that fire at the end.
func fire(file string, in io.Reader, out io.Writer) error {
	var asked scenario
	if err := json.NewDecoder(in).Decode(&asked); err != nil {
		return err
	}
	load := "load 1m\n"
	for _, series := range asked.Series {
		load += "  " + series + "\n"
	}
	suite, err := promqltest.NewLazyLoader(load, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	if err != nil {
		return err
	}
	defer suite.Close()
	suite.SubqueryInterval = interval
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()),
		AppendableV2: suite.Storage(),
		Context:      context.Background(),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Logger:       promslog.NewNopLogger(),
	})
	groups, problems := manager.LoadGroups(interval, labels.EmptyLabels(), "", nil, false, file)
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	end := time.Unix(0, 0).UTC().Add(time.Duration(asked.Minutes) * interval)
	for at := time.Unix(0, 0).UTC(); !at.After(end); at = at.Add(interval) {
		if err := evaluate(suite, groups, at); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(firing(groups))
}

func evaluate(suite *promqltest.LazyLoader, groups map[string]*rules.Group, at time.Time) (failed error) {
	suite.WithSamplesTill(at, func(err error) {
		failed = err
		for _, group := range groups {
			for _, rule := range group.Rules() {
				if alerting, ok := rule.(*rules.AlertingRule); ok {
					alerting.SetRestored(true)
				}
			}
			group.Eval(suite.Context(), at)
			for _, rule := range group.Rules() {
				failed = errors.Join(failed, rule.LastError())
			}
		}
	})
	return failed
}

func firing(groups map[string]*rules.Group) []alert {
	all := []alert{}
	for _, group := range groups {
		for _, rule := range group.Rules() {
			alerting, ok := rule.(*rules.AlertingRule)
			if !ok {
				continue
			}
			for _, active := range alerting.ActiveAlerts() {
				if active.State == rules.StateFiring {
					all = append(all, alert{alerting.Name(), active.Labels.Map(), active.Annotations.Map()})
				}
			}
		}
	}
	return all
}
