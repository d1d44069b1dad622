//! What every database of Bursar answers: each claim is written once and asked of all of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a row that is not there fails the test")]

mod audit;
mod breakdown;
mod caps;
mod chain;
mod clock;
mod counts;
mod decisions;
mod expiry;
mod filters;
mod history;
mod integrations;
mod keys;
mod limits;
mod mixture;
mod months;
mod panics;
mod protection;
mod rates;
mod records;
mod reservations;
mod rollups;
mod series;
mod subject;
mod sums;
mod tenancy;
mod tenant_caps;
mod tenants;
mod verifying;
mod watch;

/// Turns each claim into a test of one database.
macro_rules! tests_of {
    ($database:expr; $($noun:ident: $($claim:ident),+;)+) => {
        $(mod $noun {
            $(#[tokio::test]
            async fn $claim() {
                crate::conformance::$noun::$claim(crate::conformance::subject::Subject::new($database)).await;
            })+
        })+
    };
}

/// Every claim, and the databases that fulfil them: a new database is one more module below.
macro_rules! conformance {
    ($($name:ident: $database:expr;)+) => {
        $(mod $name {
            tests_of! {
                $database;
                tenants:
                    a_tenant_leads_back,
                    tenants_come_oldest_first_page_by_page,
                    changes_of_a_tenant_are_stored_and_audited,
                    the_clock_of_the_store_never_runs_backwards;
                clock:
                    a_clock_that_is_ahead_for_half_a_second_changes_nothing,
                    a_clock_that_stays_ahead_is_believed_after_a_minute,
                    a_restart_does_not_believe_a_clock_that_jumped,
                    a_confirmation_ends_the_wait,
                    a_time_that_ran_ahead_is_taken_back_for_good,
                    behind_a_jump_back_holds_end_and_rates_go_on,
                    an_account_far_ahead_does_not_delay_decisions;
                integrations:
                    an_integration_leads_back_field_by_field,
                    an_update_changes_only_the_named_fields,
                    null_clears_a_nullable_field,
                    another_origin_drops_the_credential,
                    a_live_name_is_taken_once,
                    deleting_hides_the_integration_and_frees_its_name,
                    integrations_are_filtered_and_paged_with_their_total,
                    an_integration_in_error_is_disabled_but_not_enabled,
                    a_tenant_that_is_not_active_changes_no_integration;
                keys:
                    an_api_key_leads_back,
                    a_second_revocation_changes_nothing,
                    api_keys_come_oldest_first_page_by_page,
                    an_integration_key_leads_back,
                    integration_keys_come_oldest_first_page_by_page,
                    a_key_of_a_deleted_integration_is_gone,
                    an_unknown_key_is_not_revoked,
                    a_key_is_known_to_its_owner_only,
                    a_rotated_key_has_a_successor_and_ends_after_the_overlap,
                    an_overlap_ends_with_the_key_and_none_revokes_it,
                    a_key_that_ended_or_was_rotated_is_not_rotated,
                    uses_of_keys_are_written_once_a_minute_and_never_back;
                tenant_caps:
                    a_tenant_has_as_many_integrations_as_its_cap,
                    a_tenant_has_as_many_live_keys_as_its_cap,
                    a_rotation_has_room_of_its_own,
                    the_oldest_keys_that_ended_go,
                    creates_at_once_do_not_pass_the_cap;
                audit:
                    every_change_is_audited_once,
                    a_change_that_fails_leaves_neither_row_nor_audit,
                    a_refused_change_is_not_audited,
                    an_audit_row_leads_back_field_by_field,
                    the_audit_log_comes_newest_first_page_by_page,
                    the_audit_log_is_read_from_its_beginning_page_by_page,
                    each_filter_of_the_audit_log_returns_matching_rows,
                    audit_filters_that_seldom_meet_lead_on_to_every_match,
                    a_chain_goes_on_after_a_restart,
                    the_audit_log_of_another_tenant_is_not_read;
                chain:
                    an_untouched_chain_is_whole,
                    a_column_that_was_edited_is_found,
                    a_row_that_was_taken_out_is_found,
                    an_end_that_was_cut_off_is_found,
                    rows_that_changed_places_are_found,
                    a_row_that_was_put_in_is_found,
                    a_forged_head_is_found,
                    a_chain_written_anew_without_the_key_is_found,
                    a_log_that_was_emptied_is_found,
                    a_forged_head_is_not_made_genuine_by_the_next_change,
                    a_row_is_not_written_where_one_stands_already;
                records:
                    a_record_leads_back_field_by_field,
                    a_repetition_is_a_duplicate_even_after_a_restart,
                    other_content_is_a_conflict_and_changes_nothing,
                    the_other_fields_never_conflict,
                    each_record_of_a_batch_stands_alone,
                    a_refused_record_gives_its_call_id_back,
                    records_are_accepted_whatever_became_of_the_integration,
                    a_total_that_does_not_fit_is_refused;
                reservations:
                    a_hold_counts_until_its_call_is_recorded,
                    a_release_gives_the_hold_back_once,
                    an_extension_renews_an_open_hold_only,
                    the_first_answer_is_replayed_even_after_a_restart,
                    a_call_id_that_was_used_admits_nothing,
                    a_refused_reservation_gives_its_call_id_back,
                    a_record_after_the_release_counts_in_full,
                    a_record_without_a_price_counts_the_held_amount,
                    the_reservation_of_another_integration_is_unknown,
                    open_reservations_are_listed_by_expiry,
                    reserving_and_recording_in_one_group_settles,
                    a_replay_is_refused_while_its_tenant_or_integration_is_switched_off,
                    known_only_accepts_reserved_and_recorded_calls_only,
                    reserving_and_recording_a_known_call_in_one_group_settles;
                expiry:
                    a_due_hold_counts_in_no_read_swept_or_not,
                    a_due_hold_counts_in_no_month_and_no_gauge_swept_or_not,
                    a_due_hold_is_removed_by_a_sweep_or_for_its_own_call_only,
                    a_sweep_goes_in_steps,
                    a_sweep_finds_the_holds_of_an_integration_that_changed,
                    a_hold_that_ended_stays_ended_when_the_clock_goes_back,
                    a_sweep_expires_holds_of_unused_accounts,
                    a_hold_made_before_a_restart_expires_after_it,
                    a_hold_that_was_due_before_the_restart_expires_at_the_start,
                    an_extended_hold_expires_at_its_new_time,
                    a_record_after_the_expiry_counts_in_full;
                caps:
                    open_reservations_are_bounded_by_integration_and_tenant,
                    holds_that_are_due_take_no_place_swept_or_not,
                    records_beyond_the_bytes_of_a_day_are_refused;
                limits:
                    a_changed_limit_is_used_by_the_next_command,
                    a_changed_limit_keeps_used_and_held_sums,
                    a_changed_status_is_used_by_the_next_command,
                    a_changed_health_is_used_by_the_next_command,
                    a_changed_tenant_is_used_by_the_next_command,
                    a_token_limit_is_kept,
                    an_estimate_is_needed_under_a_limit;
                rates:
                    calls_of_the_last_minute_are_throttled,
                    rate_slots_survive_a_restart,
                    only_fresh_calls_that_went_on_count,
                    a_reserved_call_counts_once;
                months:
                    a_late_record_counts_in_its_own_month,
                    a_record_of_the_near_future_counts_in_the_next_month,
                    a_new_month_starts_with_nothing_used,
                    a_hold_stays_in_the_month_in_which_it_was_made,
                    a_record_that_names_another_month_counts_there,
                    a_hold_of_last_month_expires_from_last_month,
                    a_hold_of_last_month_expires_at_a_start_months_later;
                rollups:
                    usage_by_day_is_the_sum_of_the_entries,
                    days_come_page_by_page_with_their_total,
                    a_read_takes_memory_for_its_result,
                    a_page_of_an_export_is_small_and_leads_to_the_end,
                    usage_by_integration_is_the_sum_of_the_entries,
                    the_days_asked_for_are_inclusive,
                    a_deleted_integration_keeps_its_usage_and_name,
                    hours_days_and_agents_are_the_sums_of_the_entries,
                    models_past_a_thousand_are_counted_as_other,
                    models_of_one_tenant_take_no_room_from_another,
                    agents_past_ten_thousand_are_counted_as_other;
                history:
                    the_history_runs_from_the_newest_to_the_oldest,
                    a_cursor_meets_every_entry_once_ties_included,
                    an_offset_passes_over_rows,
                    each_filter_returns_matching_entries;
                filters:
                    filters_combine_in_every_way,
                    the_last_page_names_no_next_one,
                    filters_that_seldom_meet_lead_on_to_every_match,
                    pages_without_a_second_filter_are_full,
                    a_page_of_heavy_entries_ends_early_and_leads_on;
                breakdown:
                    each_group_is_the_sum_of_its_entries,
                    the_largest_groups_come_first,
                    groups_of_equal_cost_come_by_calls_then_by_name,
                    the_rest_of_the_total_is_the_sum_of_the_unlisted_groups,
                    the_days_of_a_breakdown_are_inclusive,
                    a_deleted_integration_keeps_its_name_in_its_group,
                    groups_and_total_are_of_one_moment;
                series:
                    each_step_is_the_sum_of_its_entries,
                    agents_have_days_but_no_hours,
                    sessions_have_no_steps_of_their_own,
                    groups_that_are_not_told_apart_count_in_the_total,
                    the_days_of_a_series_are_inclusive;
                counts:
                    calls_are_counted_by_label_and_outcome,
                    the_days_that_are_counted_are_inclusive,
                    a_label_without_rollups_of_its_own_is_not_counted,
                    a_model_that_is_partly_other_is_not_counted;
                decisions:
                    a_decision_leads_back_field_by_field,
                    a_decision_that_is_met_again_is_replaced,
                    decisions_come_newest_first_page_by_page,
                    each_filter_of_decisions_returns_matching_decisions,
                    only_the_newest_decisions_of_a_tenant_are_kept;
                protection:
                    a_signal_leads_back_field_by_field,
                    a_signal_that_is_met_again_is_replaced,
                    signals_come_newest_first_page_by_page,
                    only_the_newest_signals_of_a_tenant_are_kept,
                    an_override_leads_back_until_it_expires,
                    a_later_override_replaces_the_one_before,
                    an_override_is_audited_and_an_unknown_tenant_has_none,
                    the_cost_of_a_day_is_that_of_all_integrations,
                    a_cost_that_no_integer_holds_is_summed_all_the_same,
                    a_foreign_tenant_sees_nothing_of_protection;
                tenancy:
                    a_foreign_tenant_reads_nothing,
                    a_foreign_tenant_reads_no_figures_and_no_decisions,
                    a_foreign_tenant_changes_nothing,
                    one_call_id_of_two_tenants_is_two_calls;
                watch:
                    the_integrations_nearest_to_a_limit_come_first,
                    one_tenant_does_not_crowd_out_others_near_their_limits,
                    only_live_integrations_with_a_monthly_limit_are_hot,
                    held_amounts_count_towards_near_limits,
                    the_stats_count_what_is_stored;
                sums:
                    a_session_of_more_than_64_bits_is_told_exactly,
                    the_largest_session_comes_first_beyond_64_bits,
                    a_count_of_more_than_64_bits_is_refused_in_every_read,
                    a_record_whose_sum_does_not_fit_is_refused_alone;
                panics:
                    a_read_that_panics_fails_alone_and_its_reader_is_replaced,
                    a_change_that_panics_fails_alone_and_leaves_nothing;
                verifying:
                    verification_reports_what_it_counted,
                    a_figure_that_was_changed_is_found,
                    a_row_that_is_missing_is_found,
                    an_entry_that_was_changed_is_found;
            }
        })+
    };
}

conformance! {
    sqlite: crate::support::SQLITE;
    postgresql: crate::support::server::POSTGRES;
}
