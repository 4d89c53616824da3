//! E and F: faults of the API server, and what others do to `cacerts`.

use super::Promise::{Bound, Bystanders, Closed, Heals, One, Tells};
use super::{Row, not_run, row};

pub(super) const ROWS: &[Row] = &[
    row(
        "E1",
        "the API server is killed, and comes back",
        &[Heals, Closed],
        &["real:restart::a_gate_that_starts_long_before_its_api_server_is_open_soon_after_it", "scenes"],
    ),
    row("E2", "etcd is stopped", &[Heals, Closed], &["scenes"]),
    row(
        "E3",
        "403 on get, create and patch",
        &[Tells, Heals],
        &[
            "it:once::what_it_may_not_write_it_leaves_alone",
            "it:contradiction::a_refused_write_is_not_tried_at_each_attempt",
            "random",
        ],
    ),
    row(
        "E4",
        "the namespace is not there yet",
        &[Tells, Heals],
        &["real:restart::a_gate_that_starts_long_before_its_namespace_exists_is_ready_soon_after_it"],
    ),
    not_run(
        "E5",
        "the namespace is being deleted, or made anew",
        &[Heals],
        "with it goes the gate itself; that its namespace comes later is E4",
    ),
    row("E6", "a quota refuses the Secret", &[Tells, One, Heals], &["scenes"]),
    row(
        "E7",
        "a watch is cut, 410 Gone",
        &[Closed, Heals],
        &["random", "cluster:cacerts::tests::a_watch_that_a_read_contradicts_is_not_trusted_until_it_has_begun_anew"],
    ),
    row(
        "E8",
        "a lost event: a deletion that no watch told",
        &[Closed],
        &["it:contradicted::a_deletion_that_the_watch_never_told_closes_the_gate_while_vault_is_away"],
    ),
    row(
        "E9",
        "stale reads; versions that went back",
        &[Closed],
        &[
            "it:contradicted::a_read_of_a_version_that_is_gone_opens_nothing",
            "it:contradicted::an_api_server_whose_versions_went_back_is_believed_once_its_list_agrees",
        ],
    ),
    row("E10", "AlreadyExists, Conflict", &[Bystanders, Heals], &["random", "gate:converge::scenes::unclear::"]),
    row(
        "E11",
        "answers cut at any byte",
        &[Closed],
        &["it:quiet::nothing_of_a_key_or_token_is_logged_or_answered_even_at_trace", "cluster:stream::", "random"],
    ),
    row(
        "E12",
        "silence, lost requests, lost answers, late writes",
        &[Closed, Heals],
        &["random", "it:reviews::an_api_server_that_does_not_answer_is_told_within_the_timeout"],
    ),
    row("E13", "429 and 5xx", &[Heals], &["random"]),
    row(
        "E14",
        "a `cacerts` that comes while the key is made",
        &[One, Bystanders],
        &["it:one_root::a_cacerts_that_comes_while_the_key_is_made_keeps_the_root_from_being_made"],
    ),
    row(
        "E15",
        "a mesh on a root of its own, or one that starts meanwhile",
        &[One, Bystanders],
        &["real:race::beside_a_mesh_on_a_root_of_its_own_nothing_is_made_until_what_it_left_is_gone", "it:one_root::"],
    ),
    row(
        "E16",
        "the API server's objects without a bound",
        &[Bound],
        &["it:bounds::owners_of_any_size_do_not_fill_the_memory"],
    ),
    row(
        "F1",
        "deleted after it was open",
        &[Closed, Heals],
        &["real:cacerts::the_next_istiod_after_a_deletion_is_kept_out_until_it_is_back", "random"],
    ),
    row(
        "F2",
        "root, key, chain or all tampered with; the same in other bytes",
        &[Closed, Heals],
        &["real:cacerts::deleted_or_tampered_with_it_is_mended_to_the_byte", "random"],
    ),
    row(
        "F3",
        "`tls.crt` and `istio-generated` beside it",
        &[Closed, Tells],
        &["real:cacerts::keys_that_change_what_istiod_reads_keep_it_out"],
    ),
    row(
        "F4",
        "managed by External Secrets",
        &[Bystanders, Closed],
        &[
            "real:external_secrets::beside_external_secrets_the_gate_never_writes_asks_seldom_and_opens_when_it_is_equal",
        ],
    ),
    row(
        "F5",
        "somebody else's, with another root",
        &[Bystanders, Closed],
        &["real:cacerts::somebody_elses_sound_root_is_never_overwritten", "random"],
    ),
    row(
        "F6",
        "`immutable: true`",
        &[Tells, Bound],
        &["it:contradiction::an_immutable_cacerts_is_named_and_never_written_in_vain"],
    ),
    row(
        "F7",
        "another root was there before Vault had one",
        &[One, Tells],
        &["real:cacerts::what_vault_never_had_is_not_replaced"],
    ),
    row(
        "F8",
        "an `istio-ca-secret` is left over",
        &[Tells],
        &["it:doctor::before_an_installation_a_mesh_on_another_root_is_found_and_what_could_not_be_seen_is_no_success"],
    ),
    row(
        "F9",
        "Vault speaks against the root, then is away",
        &[Closed],
        &[
            "random",
            "real:restart::what_vault_has_said_against_the_root_outlives_a_gate_that_is_started_while_vault_is_away",
            "it:contradiction::",
        ],
    ),
    row(
        "F10",
        "a backup is restored over it",
        &[Tells, Heals],
        &["real:adopt::a_cacerts_restored_from_a_backup_is_handed_back_and_mended_again"],
    ),
];
