//! A to C: faults of Vault.

use super::Promise::{Bound, Closed, Heals, One, Quiet, Tells};
use super::{Row, not_run, row};

pub(super) const ROWS: &[Row] = &[
    row(
        "A1",
        "connections are refused",
        &[Tells, Heals],
        &[
            "real:adversity::each_fault_of_an_open_clusters_vault_has_its_code_and_heals",
            "it:vault_transport::a_refused_or_reset_connection_says_so_and_heals",
        ],
    ),
    row(
        "A2",
        "silence",
        &[Tells, Heals],
        &["random", "it:vault_addresses::an_address_that_stays_silent_costs_its_wait_once"],
    ),
    row(
        "A3",
        "answers byte by byte",
        &[Tells, Heals],
        &["random", "it:vault_transport::an_answer_slower_than_the_timeout_is_left_in_time"],
    ),
    row(
        "A4",
        "sealed at the start",
        &[Tells, One, Heals],
        &["real:adversity::from_nothing_each_fault_has_its_code_until_the_root_is_made"],
    ),
    row(
        "A5",
        "sealed at any moment, also between read and write",
        &[One, Heals],
        &["random", "real:adversity::each_fault_of_an_open_clusters_vault_has_its_code_and_heals"],
    ),
    row(
        "A6",
        "not initialised",
        &[Tells],
        &[
            "vault:answer::tests::a_sealed_vault_is_told_from_one_that_is_broken",
            "it:vault_read::each_status_has_its_code",
        ],
    ),
    row(
        "A7",
        "a standby that answers by itself, and lags or is cut off",
        &[Closed, One],
        &[
            "it:vault_addresses::what_a_standby_says_that_may_be_behind_or_cut_off_does_not_count",
            "it:vault_addresses::never_written_by_a_standby_that_lags_is_read_once_more_from_the_active_node",
        ],
    ),
    row(
        "A8",
        "a redirect to a foreign host",
        &[Quiet, Tells],
        &["it:vault_transport::a_redirect_takes_no_token_to_a_foreign_server"],
    ),
    row(
        "A9",
        "404 by a node that lags, right after the write",
        &[One],
        &["real:lossy::a_write_that_is_lost_late_or_unseen_makes_one_root"],
    ),
    row(
        "A10",
        "429 with Retry-After",
        &[Tells, Heals],
        &[
            "real:lossy::a_vault_behind_a_bad_network_is_used_once_it_is_good",
            "it:vault_read::a_wait_without_end_is_not_heeded_to_the_end",
        ],
    ),
    row(
        "A11",
        "500 to 504, with HTML",
        &[Tells, Heals],
        &["real:lossy::a_vault_behind_a_bad_network_is_used_once_it_is_good", "random"],
    ),
    row(
        "A12",
        "a certificate by the wrong CA, for another name, expired or self-signed",
        &[Quiet, Tells],
        &[
            "it:vault_transport::a_certificate_that_does_not_verify_is_named_and_sees_no_token",
            "it:doctor::each_flaw_of_vaults_certificate_is_named",
        ],
    ),
    row(
        "A13",
        "its CA replaced on disk",
        &[Heals],
        &["it:vault_transport::a_ca_replaced_on_disk_is_taken_up_and_a_broken_one_changes_nothing"],
    ),
    row(
        "A14",
        "a name that does not resolve; another address takes over",
        &[Tells, Heals],
        &[
            "it:vault_addresses::the_next_is_asked_where_connecting_tls_or_the_name_fails",
            "real:race::a_second_address_takes_over_when_the_first_is_down",
        ],
    ),
    not_run(
        "A15",
        "its disk is full, or its audit device takes no more",
        &[One, Heals],
        "tried from outside of this project alone: a test would need the right to mount a small file system. To the gate it is A11",
    ),
    row(
        "A16",
        "an address that is down may be the Vault that has the root; two addresses are two Vaults",
        &[One, Tells],
        &[
            "real:race::two_addresses_that_are_two_vaults_make_no_root",
            "it:vault_addresses::an_address_that_is_down_may_be_the_vault_that_has_the_root",
        ],
    ),
    row(
        "B1",
        "a bare 403 at the login",
        &[Tells],
        &["it:vault_login::each_refused_login_says_what_to_do_next", "random"],
    ),
    row(
        "B2",
        "an unknown role",
        &[Tells, Heals],
        &["real:adversity::each_fault_of_an_open_clusters_vault_has_its_code_and_heals", "random"],
    ),
    row(
        "B3",
        "another service account, namespace, audience or mount",
        &[Tells],
        &[
            "real:adversity::the_nas_token_at_the_homelabs_mount_is_told_what_to_do",
            "real:vault_setup::a_vault_of_which_nothing_is_set_up_is_ready_for_both_gates_by_either_way_and_once",
        ],
    ),
    row(
        "B4",
        "the token has ended or was revoked in between",
        &[Heals],
        &[
            "it:vault_login::a_token_that_had_worked_is_replaced_soon_however_often_it_is_revoked",
            "real:adversity::each_fault_of_an_open_clusters_vault_has_its_code_and_heals",
        ],
    ),
    row(
        "B5",
        "the JWT file is replaced or missing",
        &[Tells, Heals],
        &[
            "it:vault_login::a_replaced_jwt_file_is_read_at_the_next_login",
            "it:vault_login::a_jwt_file_that_cannot_be_used_is_named_and_nothing_is_sent",
        ],
    ),
    row(
        "B6",
        "the read is refused: never taken for absent",
        &[One, Tells],
        &[
            "it:vault_read::a_refused_read_is_not_absent_and_costs_a_kept_token_one_login",
            "gate:converge::scenes::unclear::what_cannot_be_asked_is_never_taken_for_absent",
        ],
    ),
    row(
        "B7",
        "the write is refused while there is nothing",
        &[One, Tells, Heals],
        &["real:adversity::from_nothing_each_fault_has_its_code_until_the_root_is_made"],
    ),
    row(
        "B8",
        "the sync role with rights to write, and an empty Vault",
        &[One],
        &["real:adversity::the_seeds_one_policy_file_gave_the_nas_write_rights_and_the_two_files_do_not"],
    ),
    row(
        "B9",
        "the preflight of the mount is refused",
        &[One, Tells],
        &["it:vault_read::never_written_is_absent_on_nothing_but_a_positive_kv_version_2"],
    ),
    row(
        "C1",
        "nothing there, in the sync role",
        &[One, Tells],
        &["real:story::nas_waits_homelab_bootstraps_nas_follows_by_itself"],
    ),
    row(
        "C2",
        "the check-and-set is lost to somebody else",
        &[One],
        &["real:race::five_replicas_consulted_at_once_make_one_root"],
    ),
    row(
        "C3",
        "a write is done, and its answer lost",
        &[One, Heals],
        &["real:lossy::a_write_that_is_lost_late_or_unseen_makes_one_root", "random"],
    ),
    row(
        "C4",
        "a write is lost, or arrives late",
        &[One, Heals],
        &["real:lossy::a_write_that_is_lost_late_or_unseen_makes_one_root", "random"],
    ),
    row(
        "C5",
        "the version is deleted softly",
        &[Closed, One, Heals],
        &["real:adversity::each_fault_of_an_open_clusters_vault_has_its_code_and_heals", "random"],
    ),
    row(
        "C6",
        "the version is destroyed",
        &[Closed, One],
        &[
            "it:vault_read::a_version_that_is_gone_is_deleted_and_not_absent",
            "gate:converge::scenes::rows::what_was_deleted_is_never_made_anew",
        ],
    ),
    row(
        "C7",
        "the metadata is deleted after `cacerts` was there",
        &[One, Closed],
        &["real:cacerts::a_root_lost_by_vault_is_not_made_again"],
    ),
    row(
        "C8",
        "KV version 1, or no mount",
        &[One, Tells],
        &["real:adversity::mounts_that_cannot_hold_a_root_are_told_apart"],
    ),
    row(
        "C9",
        "a mount that is upgrading",
        &[One, Tells],
        &["it:vault_read::a_404_that_is_not_vaults_never_written_is_never_absent"],
    ),
    row(
        "C10",
        "`delete_version_after`",
        &[Tells],
        &["vault:answer::tests::a_deleted_and_a_destroyed_version_had_a_root"],
    ),
    row(
        "C11",
        "a newer version by an operator, of the same or other roots",
        &[Closed],
        &["it:root_change::", "random"],
    ),
    row("C12", "an older version restored", &[Closed, One], &["gate:converge::model::"]),
    row(
        "C13",
        "wrong keys, empty values or no texts, extra keys",
        &[Closed, Tells],
        &["it:vault_read::a_record_that_is_not_sound_is_neither_absent_nor_sound", "core:ca::bundle::"],
    ),
    row(
        "C14",
        "key and certificate apart, not a CA, wrong usage, path length, expired, not yet valid",
        &[Closed, Tells],
        &["core:ca::check::", "core:ca::certificate::", "judge:"],
    ),
    row(
        "C15",
        "1 MiB of PEM, 10,000 certificates, CRLF, no last newline, PKCS#1",
        &[Closed, Bound],
        &["core:ca::pem::", "core:ca::check::tests::an_rsa_key_may_be_pkcs1_or_pkcs8"],
    ),
    row(
        "C16",
        "an answer of 1 GiB, or without an end",
        &[Bound, Tells],
        &["it:vault_transport::an_endless_answer_is_left_at_the_cap"],
    ),
    row(
        "C17",
        "an answer that is cut at any byte",
        &[One, Closed],
        &["it:vault_read::no_cut_of_an_answer_is_absent_or_sound"],
    ),
];
