//! One contract, two databases: every case runs on SQLite and, if `TEST_DATABASE_URL` names a
//! server, on PostgreSQL (`scripts/postgres.sh run cargo nextest run` starts one).

mod backups;
mod benchmarks;
mod builders;
mod concurrency;
mod datasets;
mod deletion;
mod extras;
mod harness;
mod imports;
mod keys;
mod leaderboard;
mod leadership;
mod lifecycle;
mod migrations;
mod pending;
mod preferences;
mod recording;
mod run_data;
mod runs;
mod slices;
mod studies;
mod submissions;
mod summaries;

use harness::{Kind, run};

/// Defines one test per case and database.
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
    benchmarks:
        a_benchmark_has_the_numbers_of_a_run_of_its_own
        attributes_and_objects_are_slices_with_a_matrix_of_methods;
    recording:
        a_recorded_sample_reads_back_as_it_was
        an_unknown_sample_is_none
        recording_again_returns_the_first_sample_and_counts_once
        the_same_name_with_other_content_is_a_conflict
        the_same_name_is_free_in_another_run
        an_unnamed_sample_is_identified_by_its_content
        a_sample_outside_any_run_is_always_new
        a_method_without_a_run_has_a_default_run
        further_metrics_are_added_to_a_sample
        another_version_replaces_the_score
        another_pack_adds_its_own_scores
        unusual_names_and_texts_are_stored_verbatim
        invalid_names_are_refused
        non_finite_numbers_are_refused
        a_metric_given_twice_is_refused
        a_refused_sample_leaves_nothing_behind
        a_corrupted_row_is_named;
    studies:
        a_choice_of_one_out_of_three_is_two_votes_of_one_trial
        the_next_item_has_the_fewest_answers_of_those_who_count
        a_deleted_sample_takes_its_items_of_all_studies_along
        votes_are_counted_by_pair_of_runs;
    submissions:
        the_same_bundle_is_received_once
        a_verified_submission_is_a_run_until_it_is_withdrawn
        a_submission_whose_run_exists_stays_received
        deletions_leave_digest_names_and_times_in_the_log;
    leaderboard:
        an_empty_store_has_an_empty_leaderboard
        a_row_has_the_mean_and_deviation_of_each_metric
        runs_of_a_method_are_merged_or_separate
        packs_are_never_averaged
        versions_are_never_averaged
        nulls_are_counted_but_not_averaged
        filters_select_rows
        rows_sort_by_the_mean_of_a_metric_and_those_without_it_come_last
        pages_cover_all_rows_in_every_order
        names_sort_by_their_bytes
        a_cursor_of_another_query_is_refused
        an_invalid_page_size_is_refused;
    summaries:
        a_replaced_score_is_removed_from_the_sums_of_its_version
        removing_the_last_score_of_a_version_removes_its_row
        tiny_and_large_numbers_neither_fail_nor_overflow
        summaries_equal_a_recomputation_from_the_scores;
    concurrency:
        sixty_four_clients_lose_no_row_and_no_sum
        clients_repeating_one_sample_agree_on_its_id
        clients_rescoring_the_same_samples_do_not_deadlock
        two_processes_share_a_database
        writers_do_not_block_a_reader
        dropped_recordings_are_all_or_nothing
        recordings_after_dropped_ones_are_visible_to_others
        recordings_of_clients_that_left_are_in_the_service_metrics
        samples_recorded_at_the_same_time_share_transactions
        sharing_a_transaction_changes_no_outcome
        sums_of_a_transaction_are_added_to_those_of_the_run;
    datasets:
        a_photo_is_identified_by_identity_and_name
        datasets_are_listed_by_name
        the_samples_of_a_run_come_with_their_first_reference
        faces_read_back_and_expire_unless_the_photo_is_enrolled
        the_faces_state_changes_with_the_stored_faces
        photos_are_read_in_pages
        a_prompt_is_identified_by_identity_and_text
        prompts_are_read_in_pages_by_identity_and_kind
        invalid_prompts_are_refused_as_a_batch
        concurrent_registrations_assign_unique_positions
        prompts_are_deleted_with_their_dataset;
    deletion:
        a_deleted_sample_is_removed_from_the_summaries
        deleting_the_last_sample_removes_the_row
        deleting_a_run_leaves_other_runs_unchanged
        faces_are_deleted_with_the_last_use_of_their_image
        deleting_a_dataset_leaves_others_unchanged
        deleting_an_image_deletes_its_faces_and_enrolments_everywhere
        deleting_the_unknown_returns_none
        concurrent_deletions_and_recordings_keep_the_sums
        concurrent_deletions_leave_recorded_samples_their_faces;
    extras:
        evidence_reads_back_in_the_order_of_recording
        extras_are_written_by_shared_transactions
        thumbnails_expire_after_they_were_last_needed
        extras_are_deleted_with_their_sample_run_or_image
        a_deletion_waits_for_a_recording_that_did_not_see_it
        nothing_is_kept_of_an_image_that_was_deleted_meanwhile;
    runs:
        a_method_is_created_once_and_its_description_updated
        a_card_and_the_settings_of_a_run_read_back
        a_run_is_created_once_with_its_facts
        a_run_created_by_a_sample_accepts_facts_once
        runs_are_listed_in_creation_order
        samples_are_ranked_by_a_score_and_listed_briefly
        a_finished_run_refuses_samples
        every_change_of_scores_raises_the_revision;
    pending:
        a_sample_is_pending_until_it_is_recorded
        pending_samples_are_recorded_together
        a_pending_sample_is_recorded_only_with_the_faces_that_it_needs
        faces_are_stored_for_a_sample_while_something_needs_its_image
        faces_that_are_needed_again_are_kept_for_longer
        a_submission_is_identified_by_name_and_content
        a_failed_sample_may_be_resubmitted_with_other_content
        photos_referenced_by_hash_must_be_stored_for_the_run
        a_shared_image_is_kept_for_the_second_sample
        a_run_has_a_bounded_size_and_one_pack
        samples_are_postponed_and_scored_oldest_first
        samples_are_listed_by_name_in_every_state
        deletion_covers_pending_samples
        faces_stay_for_pending_samples_of_another_run
        concurrent_submissions_of_the_same_samples_count_once
        blocked_samples_are_reported;
    imports:
        imported_scores_coexist_with_computed_ones
        the_attribute_table_of_a_run_is_bounded
        invalid_numbers_are_not_imported
        a_repeated_import_replaces_the_scores_of_its_source
        an_import_of_many_statements_is_complete
        concurrent_imports_are_all_summarised
        scores_of_a_whole_run_are_added_once;
    run_data:
        a_run_reads_as_columns_in_the_order_of_names
        an_unknown_run_has_no_data_and_an_empty_one_no_pack
        the_newest_version_of_a_metric_is_used
        the_pack_with_most_scores_is_read_unless_another_is_named
        batches_have_no_gaps_or_repeats;
    slices:
        a_summarised_run_has_intervals_until_it_changes
        slices_are_read_by_label_with_a_minimum_size
        the_penalty_follows_the_requested_policy
        runs_of_a_method_merge_by_identity
        the_cached_leaderboard_is_never_stale
        filters_select_runs_by_their_facts
        rows_are_ranked_by_mean_rank_page_by_page
        deletion_removes_computed_summaries
        distributions_are_stored_by_run;
    preferences:
        preferences_read_back_page_by_page
        a_new_vote_of_an_annotator_replaces_the_previous_one
        preferences_on_unknown_samples_are_refused_as_a_batch
        preferences_are_deleted_with_samples_runs_or_annotators
        votes_that_do_not_count_are_kept_apart
        samples_of_several_runs_read_as_one
        unjudged_samples_are_found;
    keys:
        a_key_reads_back_as_it_was
        a_key_is_valid_until_it_expires_or_is_revoked
        the_name_of_a_revoked_key_is_free
        bytes_count_for_the_key_that_sent_them_until_they_are_released
        the_audit_log_is_read_from_the_newest_entry
        old_entries_of_the_audit_log_are_forgotten;
    lifecycle:
        a_reopened_store_has_all_data
        concurrent_opens_all_succeed
        a_newer_schema_is_refused
        a_changed_migration_is_refused
        a_migration_registers_the_photos_of_existing_samples
        samples_of_an_older_schema_survive_migrations
        a_closed_store_is_unavailable
        both_databases_have_the_same_tables_and_columns;
    migrations:
        every_schema_migrates_with_its_data_while_an_old_instance_writes
        every_table_has_a_row_in_the_migration_test
        a_backup_of_an_older_schema_is_migrated_when_it_is_restored;
    backups:
        a_backup_restores_to_equal_rows_in_either_database
        a_restore_changes_nothing_that_has_rows_or_files
        damaged_and_newer_backups_are_refused_and_say_why
        spools_of_several_instances_are_restored_as_one;
}
