//! One contract, two databases: every case runs on SQLite and, where `TEST_DATABASE_URL` names a server, on
//! PostgreSQL (`scripts/postgres.sh run cargo nextest run` starts one).

mod concurrency;
mod datasets;
mod deletion;
mod harness;
mod leaderboard;
mod lifecycle;
mod preferences;
mod recording;
mod run_data;
mod runs;
mod slices;
mod summaries;

use harness::{Kind, run};

/// Makes a test of each case for each database.
macro_rules! on_both_databases {
    ($($module:ident: $($case:ident)*;)*) => {
        mod sqlite {
            use super::*;
            $($(#[test] fn $case() { run(Kind::Sqlite, stringify!($case), $module::$case); })*)*
        }
        mod postgres {
            use super::*;
            $($(#[test] fn $case() { run(Kind::Postgres, stringify!($case), $module::$case); })*)*
        }
    };
}

on_both_databases! {
    recording:
        a_recorded_sample_reads_back_as_it_was
        an_unknown_sample_is_none
        recording_again_returns_the_first_sample_and_counts_once
        a_name_cannot_stand_for_other_content
        the_same_name_may_stand_for_other_content_in_another_run
        a_sample_without_a_name_is_known_by_its_content
        a_sample_outside_any_run_is_always_new
        a_method_without_a_run_has_a_default_run
        further_metrics_are_added_to_a_sample
        another_version_replaces_the_score
        another_pack_adds_scores_beside_the_first
        odd_names_and_texts_are_kept_to_the_letter
        names_that_no_index_can_hold_are_refused
        numbers_that_are_not_finite_are_refused
        a_metric_given_twice_is_refused
        a_refused_sample_leaves_nothing_behind
        a_row_changed_by_hand_is_named;
    leaderboard:
        an_empty_store_has_an_empty_leaderboard
        a_row_has_the_mean_and_deviation_of_each_metric
        runs_of_a_method_are_counted_together_or_apart
        packs_are_never_averaged
        versions_are_never_averaged
        nulls_are_counted_but_not_averaged
        filters_leave_out_what_was_not_asked_for
        rows_are_sorted_by_the_mean_of_a_metric_and_rows_without_it_come_last
        pages_join_to_the_whole_in_every_order
        names_sort_by_their_bytes
        a_cursor_of_another_query_is_refused
        a_page_of_no_rows_or_too_many_is_refused;
    summaries:
        a_replaced_score_leaves_the_sums_of_its_version
        the_last_score_of_a_version_takes_its_row_away
        tiny_and_large_numbers_neither_fail_nor_overflow
        summaries_equal_a_recomputation_from_the_scores;
    concurrency:
        sixty_four_clients_lose_no_row_and_no_sum
        clients_repeating_one_sample_agree_on_its_id
        clients_rescoring_the_same_samples_do_not_deadlock
        two_processes_share_a_database
        a_reader_is_not_kept_waiting_by_writers
        dropped_recordings_are_all_or_nothing
        what_is_recorded_after_dropped_recordings_is_seen_by_others
        samples_recorded_at_the_same_time_share_transactions
        neighbours_in_a_transaction_change_no_outcome
        sums_of_a_transaction_join_those_of_the_run;
    datasets:
        a_photo_is_known_by_identity_and_name
        datasets_are_listed_by_name
        the_samples_of_a_run_come_with_their_first_reference
        faces_read_back_and_expire_unless_the_photo_is_enrolled
        faces_that_come_and_go_are_told_by_their_state
        photos_are_read_in_pages
        a_prompt_is_known_by_identity_and_text
        prompts_are_read_in_pages_by_identity_and_kind
        prompts_that_cannot_be_kept_are_refused_whole
        registrations_at_once_give_no_position_twice
        prompts_go_with_their_dataset;
    deletion:
        a_deleted_sample_leaves_the_summaries_of_the_others
        the_last_sample_takes_the_row_away
        a_deleted_run_leaves_the_other_runs
        faces_go_with_the_last_that_stands_on_their_image
        a_deleted_dataset_leaves_the_others
        a_deleted_image_takes_faces_and_enrolments_whoever_shares_them
        what_is_unknown_is_none
        deletions_and_recordings_at_the_same_time_keep_the_sums;
    runs:
        a_method_is_made_once_and_described_anew
        a_run_is_made_once_with_its_facts
        a_run_that_began_with_a_sample_takes_its_facts_once
        runs_are_listed_in_the_order_in_which_they_were_made
        a_sample_waits_until_it_is_recorded
        samples_that_waited_are_recorded_together
        a_submission_is_known_by_name_and_content
        what_failed_may_be_sent_again_also_with_other_content
        photos_named_by_hash_must_be_kept_for_the_run
        an_image_that_two_samples_show_is_kept_for_the_second
        a_run_has_room_for_so_many_and_one_pack
        samples_are_put_off_and_scored_oldest_first
        samples_are_listed_by_name_wherever_they_stand
        a_finished_run_takes_nothing_more
        deletion_covers_what_waits
        faces_stay_for_what_waits_in_another_run
        many_clients_submit_the_same_samples_and_none_is_lost_or_doubled
        imported_scores_stand_beside_computed_ones
        attributes_of_a_run_are_bounded_where_they_become_a_table
        numbers_that_are_no_scores_are_not_imported
        an_import_again_replaces_what_the_source_gave
        an_import_of_many_statements_is_whole
        parts_that_are_imported_at_the_same_time_are_all_summed_up
        the_revision_grows_with_whatever_changes_scores
        samples_that_wait_for_another_pack_are_told
        scores_of_a_whole_run_are_added_once;
    run_data:
        a_run_reads_as_columns_in_the_order_of_names
        an_unknown_run_has_no_data_and_an_empty_one_no_pack
        the_newest_version_of_a_metric_stands_for_it
        the_pack_with_most_scores_is_read_unless_another_is_named
        batches_join_without_gap_or_repetition;
    slices:
        a_summarised_run_has_intervals_until_it_changes
        slices_are_read_by_their_label_and_counted_from_a_minimum
        the_penalty_is_that_of_the_policy_asked_for
        runs_of_a_method_merge_by_identity
        what_is_remembered_of_a_leaderboard_is_never_old
        filters_choose_runs_by_their_facts
        rows_are_ranked_by_mean_rank_page_by_page
        deletion_takes_what_was_computed
        distributions_are_kept_by_run;
    preferences:
        answers_read_back_page_by_page
        an_annotators_answer_replaces_the_one_before
        answers_about_unknown_samples_are_refused_together
        answers_go_with_their_samples_and_runs_or_by_annotator
        samples_of_several_runs_read_as_one
        samples_nobody_judged_are_found;
    lifecycle:
        a_store_opened_again_has_everything
        openers_at_the_same_time_all_succeed
        a_newer_schema_is_refused
        a_changed_migration_is_refused
        photos_of_samples_that_were_there_before_are_known
        samples_of_an_older_schema_are_kept
        a_closed_store_is_unavailable
        both_databases_have_the_same_tables_and_columns;
}
