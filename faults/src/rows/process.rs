//! D, and G to I: processes, time, callers, and whoever installs and operates.

use super::Promise::{Bound, Bystanders, Closed, Heals, One, Quiet, Tells};
use super::{Row, not_run, row};

pub(super) const RACES: &[Row] = &[
    row(
        "D1",
        "killed before or after any call of an opening, in the bootstrap role",
        &[One, Heals, Closed],
        &["crash homelab", "gate:converge::scenes::crashes::"],
    ),
    row(
        "D2",
        "killed before or after any call of an opening, in the sync role",
        &[One, Heals, Closed],
        &["crash nas", "gate:converge::scenes::crashes::"],
    ),
    row(
        "D3",
        "2, 3, 5 or 10 processes on an empty Vault",
        &[One],
        &[
            "real:race::five_replicas_consulted_at_once_make_one_root",
            "real:once::five_bootstraps_at_once_on_an_empty_vault_make_one_root",
            "it:adopt::of_ten_clusters_that_adopt_at_once_into_a_whole_vault_one_wins",
            "gate:converge::scenes::races::three_replicas_make_one_root_in_whatever_order",
        ],
    ),
    not_run(
        "D4",
        "100 instances on an empty Vault",
        &[One],
        "a hundred processes at once say no more of check-and-set than ten, and do not fit the machines that the tests run on",
    ),
    row(
        "D5",
        "many first reviews at once in one process",
        &[One, Bound],
        &[
            "it:converging::a_hundred_reviews_at_once_start_one_convergence",
            "it:server::reviews_at_once_are_all_answered",
        ],
    ),
    row(
        "D6",
        "the API server gives up the call",
        &[Heals, Tells],
        &["it:metrics::a_call_that_its_caller_gives_up_is_counted_and_leaves_none_in_flight"],
    ),
    row(
        "D7",
        "SIGTERM at any moment",
        &[Heals],
        &[
            "random",
            "real:replicas::a_rolling_restart_under_load_fails_no_review",
            "it:server::at_the_end_an_open_request_gets_its_answer_and_a_new_one_none",
        ],
    ),
    row("D8", "SIGSTOP, then CONT", &[Closed, Heals], &["random", "scenes"]),
    not_run(
        "D9",
        "an old and a new version side by side",
        &[One, Heals],
        "no version has been released yet: there is no other one",
    ),
    row(
        "D10",
        "both clusters empty, and started together",
        &[One],
        &["random", "gate:converge::scenes::races::two_clusters_started_together_get_one_root"],
    ),
    row(
        "D11",
        "both clusters in the bootstrap role",
        &[One],
        &[
            "gate:converge::scenes::races::two_clusters_both_in_the_bootstrap_role_get_one_root",
            "gate:converge::model::",
        ],
    ),
    row(
        "D12",
        "a replica is killed under load",
        &[Closed, Heals],
        &["real:replicas::a_replica_that_is_killed_under_load_takes_only_its_own_calls_with_it"],
    ),
];

pub(super) const ROWS: &[Row] = &[
    row(
        "G1",
        "a clock that is years ahead or behind, or jumps",
        &[Closed, One],
        &[
            "it:one_root::by_a_clock_that_is_wrong_nothing_is_made_and_nothing_is_judged",
            "it:one_root::the_clock_of_the_api_server_counts_as_well",
            "core:clock::",
        ],
    ),
    row(
        "G2",
        "a root near its end, and past it",
        &[Closed, Tells],
        &[
            "core:snapshot::tests::it_is_closed_outside_of_the_time_in_which_the_certificates_are_valid",
            "core:ca::check::tests::the_first_end_of_what_is_needed_is_until_when_it_is_usable",
        ],
    ),
    row(
        "G3",
        "the serving certificate near its end, renewed, its CA rotated or lost",
        &[Heals],
        &["it:rotation::", "real:rotation::the_ca_of_two_replicas_is_rotated_and_lost_and_no_pod_is_refused"],
    ),
    row(
        "G4",
        "the serving certificate from files that are half written or do not fit",
        &[Heals],
        &["it:serving_files::a_half_written_or_mismatching_pair_leaves_the_last_good_one"],
    ),
    row(
        "G5",
        "`caBundle` stripped by somebody, again and again",
        &[Heals, Bound],
        &["it:rotation::a_stripped_bundle_is_repaired_without_a_storm_of_writes_and_holds_no_rotation_up", "random"],
    ),
    row(
        "G6",
        "a serving CA from the future",
        &[Heals],
        &["it:rotation::a_ca_from_the_future_is_followed_by_another_whether_a_gate_runs_or_starts"],
    ),
    row(
        "H1",
        "bodies of nothing, up to the cap, over it, of 1 GiB, in chunks",
        &[Bound, Tells],
        &["it:bodies::", "it:memory::endless_garbage_costs_no_more_than_a_body_and_leaves_nothing_behind"],
    ),
    row(
        "H2",
        "no JSON, other kinds and versions, no request, no uid",
        &[Tells],
        &["it:reviews::what_is_malformed_is_400_and_says_what_is_wrong", "gate:webhook::review::"],
    ),
    row(
        "H3",
        "nesting of a million, a million keys, keys twice, lone surrogates, NUL, BOM",
        &[Bound, Closed],
        &[
            "gate:webhook::review::tests::nesting_without_end_does_not_overflow_the_stack",
            "gate:webhook::review::tests::no_bytes_make_it_panic",
        ],
    ),
    row("H4", "newlines and escapes in names", &[Tells], &["it:hostile::names_are_logged_escaped_and_cut"]),
    row(
        "H5",
        "slow handshakes, heads and bodies, half-open connections",
        &[Bound],
        &["it:limits::", "it:server::slow_heads_and_bodies_block_nobody"],
    ),
    row(
        "H6",
        "10,000 idle connections",
        &[Bound, Tells],
        &["it:memory::under_ten_thousand_idle_connections_each_review_is_answered"],
    ),
    row(
        "H7",
        "floods at both ports",
        &[Bound],
        &["it:bounds::whatever_floods_both_ports_stays_within_one_budget_one_flood_after_the_other"],
    ),
    row(
        "H8",
        "old TLS, what is no TLS",
        &[Bound],
        &[
            "it:server::tls_1_2_and_1_3_work_and_older_ones_do_not",
            "it:server::what_is_not_tls_is_refused_and_does_not_hang",
        ],
    ),
    row(
        "H9",
        "two framings, odd chunks",
        &[Closed],
        &[
            "it:hostile::a_body_with_two_framings_is_refused_and_what_follows_is_not_a_request",
            "it:server::smuggling_shapes_are_refused_or_end_the_connection",
        ],
    ),
    row(
        "H10",
        "replays and forged reviews",
        &[Closed, One],
        &[
            "it:hostile::a_review_that_is_replayed_is_answered_alike",
            "it:hostile::a_forged_review_decides_no_more_than_its_pod_does",
        ],
    ),
    row(
        "H11",
        "unknown paths, methods and queries",
        &[Tells],
        &[
            "it:server::unknown_paths_and_methods_are_404_and_405_and_never_a_redirect",
            "it:hostile::odd_queries_change_nothing",
        ],
    ),
    row("H12", "dry runs", &[One, Bystanders], &["real:cacerts::a_server_side_dry_run_changes_nothing"]),
    row(
        "H13",
        "keys and tokens in what others answer",
        &[Quiet],
        &[
            "it:quiet::nothing_of_a_key_or_token_is_logged_or_answered_even_at_trace",
            "real:hygiene::the_key_of_a_new_root_is_nowhere_in_the_memory_of_the_gate_that_made_it",
        ],
    ),
    row("H14", "callers without a certificate, where one is asked for", &[Closed], &["it:client_ca::"]),
    row(
        "I1",
        "all replicas are gone",
        &[Closed, Heals],
        &["random", "real:restart::a_gate_started_again_opens_pods_deep_in_back_off_with_nobody_asking"],
    ),
    row("I2", "the webhooks are there before the gate", &[Closed, Heals], &["scenes"]),
    row(
        "I3",
        "the gate is removed, and its webhooks are left",
        &[Closed],
        &[
            "real:flux_move::an_entry_of_the_webhooks_that_goes_is_let_go_by_the_documents_command_and_nothing_opens",
            "scenes",
        ],
    ),
    row(
        "I4",
        "64 MiB of memory",
        &[Bound],
        &["it:memory::large_bodies_at_once_stay_within_the_memory_limit_of_deploy"],
    ),
    not_run(
        "I5",
        "a starved CPU",
        &[Tells],
        "no test may count on how slow a machine is: the layers themselves run on busy ones, and tell for how long those stood still",
    ),
    not_run(
        "I6",
        "a read-only file system",
        &[Heals],
        "the gate opens no file for writing; that its pods are made with `readOnlyRootFilesystem` is tested by `manifests`",
    ),
    row(
        "I7",
        "a log that nobody reads, or is closed",
        &[Bound, Heals],
        &["it:bounds::a_log_that_nobody_reads_stops_nothing"],
    ),
    row("I8", "a wrong configuration", &[Tells], &["it:usage::"]),
    not_run(
        "I9",
        "SIGSEGV leaves no core",
        &[Quiet],
        "the process is not dumpable (`src/hygiene.rs`); whether a machine keeps cores at all is up to it, and the tests may not change that",
    ),
    row(
        "I10",
        "short of descriptors",
        &[Bound],
        &["it:memory::short_of_descriptors_it_gives_up_idle_connections_and_says_so_now_and_then"],
    ),
    row("I11", "a thief of the gate's token", &[Bystanders], &["real:manifests::theft::"]),
];
