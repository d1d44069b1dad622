//! The conformance suite: each claim is written once and tested on every database.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a missing row fails the test")]

mod audit;
mod breakdown;
mod caps;
mod chain;
mod clock;
mod counts;
mod decisions;
mod expiry;
mod filters;
mod grains;
mod history;
mod integrations;
mod keys;
mod limit_changes;
mod limit_clock;
mod limit_holds;
mod limit_rows;
mod limit_values;
mod limit_windows;
mod limits;
mod mixture;
mod months;
mod operator_stats;
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

/// All claims, and the databases that they are tested on. A new database is one more line below.
macro_rules! conformance {
    ($($name:ident: $database:expr;)+) => {
        $(mod $name {
            tests_of! {
                $database;
                tenants:
                    a_tenant_is_read_back,
                    tenants_are_listed_oldest_first_page_by_page,
                    changes_of_a_tenant_are_stored_and_audited,
                    the_clock_of_the_store_never_runs_backwards;
                clock:
                    a_clock_that_is_ahead_for_half_a_second_changes_nothing,
                    a_clock_that_stays_ahead_is_adopted_after_a_minute,
                    a_restart_does_not_adopt_a_clock_that_jumped,
                    a_confirmation_adopts_the_clock_at_once,
                    a_confirmed_step_back_survives_restarts,
                    after_a_jump_back_holds_expire_and_rates_continue,
                    an_account_far_ahead_does_not_delay_decisions;
                integrations:
                    an_integration_is_read_back_field_by_field,
                    an_update_changes_only_the_named_fields,
                    null_clears_a_nullable_field,
                    a_new_origin_removes_the_credential_reference,
                    two_live_integrations_cannot_share_a_name,
                    deleting_hides_the_integration_and_frees_its_name,
                    integrations_are_filtered_and_paged_with_their_total,
                    an_integration_in_error_is_disabled_but_not_enabled,
                    integrations_of_an_inactive_tenant_cannot_be_changed;
                keys:
                    an_api_key_is_read_back,
                    a_second_revocation_changes_nothing,
                    api_keys_are_listed_oldest_first_page_by_page,
                    an_integration_key_is_read_back,
                    integration_keys_are_listed_oldest_first_page_by_page,
                    a_key_of_a_deleted_integration_is_not_found,
                    an_unknown_key_is_not_revoked,
                    a_key_is_found_by_its_owner_only,
                    a_rotated_key_has_a_successor_and_ends_after_the_overlap,
                    an_overlap_never_outlasts_the_key_and_a_zero_overlap_revokes_it,
                    an_ended_or_rotated_key_cannot_be_rotated,
                    last_used_is_written_once_a_minute_and_never_goes_back;
                tenant_caps:
                    integrations_are_limited_by_the_cap,
                    live_keys_are_limited_by_the_cap,
                    a_rotation_is_possible_at_the_cap,
                    the_oldest_ended_keys_are_deleted,
                    concurrent_creates_do_not_exceed_the_cap;
                audit:
                    every_change_is_audited_once,
                    a_failed_change_stores_neither_its_row_nor_its_audit_row,
                    a_refused_change_is_not_audited,
                    an_audit_row_is_read_back_field_by_field,
                    the_audit_log_is_listed_newest_first_page_by_page,
                    the_chain_is_read_in_order_page_by_page,
                    each_filter_of_the_audit_log_returns_matching_rows,
                    audit_filters_that_rarely_match_find_every_match,
                    a_chain_continues_after_a_restart,
                    the_audit_log_of_another_tenant_is_not_read;
                chain:
                    an_unchanged_chain_has_no_differences,
                    an_edited_column_is_found,
                    a_removed_row_is_found,
                    a_truncated_chain_is_found,
                    swapped_rows_are_found,
                    an_inserted_row_is_found,
                    a_forged_head_is_found,
                    a_chain_rewritten_without_the_key_is_found,
                    a_deleted_log_is_found,
                    a_forged_head_is_not_made_genuine_by_the_next_change,
                    a_taken_sequence_number_is_not_written_again;
                records:
                    a_record_is_read_back_field_by_field,
                    a_repetition_is_a_duplicate_even_after_a_restart,
                    other_content_is_a_conflict_and_changes_nothing,
                    fields_outside_the_comparison_never_conflict,
                    each_record_of_a_batch_is_decided_on_its_own,
                    a_refused_record_frees_its_call_id,
                    records_are_accepted_for_disabled_and_deleted_integrations,
                    a_total_that_does_not_fit_is_refused;
                reservations:
                    a_hold_counts_until_its_call_is_recorded,
                    a_release_ends_the_hold_once,
                    only_an_open_hold_is_extended,
                    the_first_outcome_is_replayed_even_after_a_restart,
                    a_used_call_id_cannot_be_reserved,
                    a_refused_reservation_frees_its_call_id,
                    a_record_after_the_release_counts_in_full,
                    a_record_without_a_price_counts_the_held_amount,
                    the_reservation_of_another_integration_is_unknown,
                    open_reservations_are_listed_by_expiry,
                    reserving_and_recording_in_one_group_settles,
                    a_replay_is_refused_while_its_tenant_or_integration_is_inactive,
                    known_only_accepts_reserved_and_recorded_calls_only,
                    reserving_and_recording_a_known_call_in_one_group_settles;
                expiry:
                    a_due_hold_counts_in_no_read_before_and_after_the_sweep,
                    a_due_hold_counts_in_no_month_and_no_gauge,
                    a_due_hold_is_removed_by_a_sweep_or_for_its_own_call_only,
                    one_sweep_ends_a_limited_number_of_holds,
                    a_sweep_finds_the_holds_of_an_integration_that_changed,
                    a_hold_that_ended_stays_ended_when_the_clock_goes_back,
                    a_sweep_expires_holds_of_unused_accounts,
                    a_hold_made_before_a_restart_expires_after_it,
                    a_hold_that_was_due_before_the_restart_expires_at_the_start,
                    an_extended_hold_expires_at_its_new_time,
                    a_record_after_the_expiry_counts_in_full;
                caps:
                    open_reservations_are_limited_by_integration_and_tenant,
                    due_holds_do_not_count_towards_the_caps,
                    records_beyond_the_daily_bytes_are_refused;
                limits:
                    a_changed_limit_is_used_by_the_next_command,
                    a_changed_limit_keeps_used_and_held_sums,
                    a_changed_status_is_used_by_the_next_command,
                    a_changed_health_is_used_by_the_next_command,
                    a_changed_tenant_is_used_by_the_next_command,
                    a_token_limit_is_enforced,
                    a_limit_requires_an_estimate;
                limit_rows:
                    a_limit_is_read_back_field_by_field,
                    a_changed_limit_is_read_back,
                    a_deleted_limit_leaves_no_rows;
                limit_holds:
                    a_reservation_holds_in_all_accounts_until_its_record,
                    a_call_without_a_reservation_counts_in_all_accounts,
                    a_release_ends_the_hold_in_all_accounts,
                    a_due_hold_counts_in_no_account_before_and_after_the_sweep,
                    a_due_hold_makes_room_before_the_sweep,
                    an_extension_moves_the_expiry_in_all_accounts,
                    a_replay_needs_the_same_labels,
                    a_hold_ends_where_it_was_made_and_the_record_counts_where_it_says;
                limit_windows:
                    a_period_that_ends_during_a_call_begins_with_nothing_held,
                    a_record_of_an_earlier_period_moves_no_limit,
                    a_hold_of_an_ended_period_expires_without_a_trace,
                    a_call_counts_for_a_minute_from_its_reservation_on,
                    a_total_counts_from_its_start_and_never_restarts;
                limit_changes:
                    a_new_or_changed_limit_is_used_by_the_next_command,
                    an_override_ends_at_its_instant,
                    holds_outlive_a_deleted_limit_in_the_other_limits,
                    a_required_label_is_asked_of_reservations_only,
                    a_limit_that_refuses_requires_an_estimate_of_its_measure,
                    limits_of_one_tenant_do_not_count_for_another;
                limit_clock:
                    holds_end_after_the_clock_was_set_back_to_the_day_before,
                    holds_end_after_the_clock_was_set_back_in_a_minute;
                limit_values:
                    values_beyond_the_cap_share_an_account,
                    a_new_period_counts_its_values_from_zero,
                    new_values_of_one_group_do_not_exceed_the_cap,
                    a_record_that_counts_nothing_takes_no_value,
                    a_named_value_has_a_limit_of_its_own,
                    each_integration_has_an_account_unless_it_has_a_limit,
                    a_rotated_key_goes_on_in_the_account_of_its_line;
                rates:
                    calls_of_the_last_minute_are_throttled,
                    rate_slots_survive_a_restart,
                    only_recent_calls_that_were_not_blocked_count,
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
                    days_are_listed_page_by_page_with_their_total,
                    a_read_takes_memory_for_its_result,
                    export_pages_are_small_and_cover_the_whole_history,
                    usage_by_integration_is_the_sum_of_the_entries,
                    the_first_and_last_day_are_inclusive,
                    a_deleted_integration_keeps_its_usage_and_name,
                    every_grain_is_the_sum_of_the_entries,
                    models_past_a_thousand_are_counted_as_other,
                    models_of_one_tenant_do_not_count_for_another,
                    agents_past_a_thousand_are_counted_as_other;
                grains:
                    a_tag_is_counted_by_value_while_its_name_is_listed,
                    values_past_a_thousand_of_one_tag_are_counted_as_other,
                    tag_names_are_replaced_and_audited,
                    a_day_distinguishes_the_keys_that_wrote_its_calls,
                    keys_past_a_thousand_a_day_are_counted_together,
                    a_series_by_hour_adds_up_its_quarters,
                    the_largest_latency_of_all_groups_is_kept,
                    calls_are_counted_by_status_and_source,
                    a_random_history_adds_up_in_every_grain;
                history:
                    the_history_runs_from_the_newest_to_the_oldest,
                    a_cursor_returns_every_entry_once_including_ties,
                    an_offset_skips_rows,
                    each_filter_returns_matching_entries;
                filters:
                    filters_combine_in_every_way,
                    the_last_page_has_no_next_position,
                    filters_that_rarely_match_together_find_every_match,
                    pages_without_a_second_filter_are_full,
                    a_page_of_large_entries_ends_early_and_names_the_next;
                breakdown:
                    each_group_is_the_sum_of_its_entries,
                    the_largest_groups_come_first,
                    groups_of_equal_cost_are_ordered_by_calls_then_by_name,
                    the_rest_of_the_total_is_the_sum_of_the_unlisted_groups,
                    the_days_of_a_breakdown_are_inclusive,
                    a_deleted_integration_keeps_its_name_in_its_group,
                    groups_and_total_are_of_one_snapshot;
                series:
                    each_step_is_the_sum_of_its_entries,
                    agents_have_days_but_no_hours,
                    sessions_have_no_steps_of_their_own,
                    unlisted_groups_count_in_the_total,
                    the_days_of_a_series_are_inclusive;
                counts:
                    calls_are_counted_by_label_and_outcome,
                    the_counted_days_are_inclusive,
                    a_label_without_rollups_of_its_own_is_not_counted,
                    a_model_that_is_partly_other_is_not_counted;
                decisions:
                    a_decision_is_read_back_field_by_field,
                    a_repeated_decision_is_replaced,
                    decisions_are_listed_newest_first_page_by_page,
                    each_filter_of_decisions_returns_matching_decisions,
                    only_the_newest_decisions_of_a_tenant_are_kept;
                protection:
                    a_signal_is_read_back_field_by_field,
                    a_repeated_signal_is_replaced,
                    signals_are_listed_newest_first_page_by_page,
                    only_the_newest_signals_of_a_tenant_are_kept,
                    an_override_is_read_back_until_it_expires,
                    a_later_override_replaces_the_one_before,
                    an_override_is_audited_and_an_unknown_tenant_has_none,
                    a_foreign_tenant_sees_nothing_of_protection;
                tenancy:
                    a_foreign_tenant_reads_nothing,
                    a_foreign_tenant_reads_no_figures_and_no_decisions,
                    a_foreign_tenant_changes_nothing,
                    one_call_id_of_two_tenants_is_two_calls;
                operator_stats:
                    the_integrations_nearest_to_a_limit_come_first,
                    one_tenant_does_not_crowd_out_others_near_their_limits,
                    only_live_integrations_with_a_monthly_limit_are_listed,
                    held_amounts_count_towards_near_limits,
                    the_stats_count_what_is_stored;
                sums:
                    a_cost_beyond_64_bits_is_exact,
                    the_largest_session_comes_first_beyond_64_bits,
                    a_count_beyond_64_bits_is_refused_in_every_read,
                    a_record_whose_sum_does_not_fit_is_refused_alone;
                panics:
                    a_read_that_panics_fails_alone_and_its_reader_is_replaced,
                    a_change_that_panics_fails_alone_and_leaves_nothing;
                verifying:
                    verification_reports_what_it_counted,
                    a_changed_account_of_a_limit_is_found,
                    a_changed_figure_is_found,
                    a_missing_row_is_found,
                    a_changed_entry_is_found;
            }
        })+
    };
}

conformance! {
    sqlite: crate::support::SQLITE;
    postgresql: crate::support::postgres_database::POSTGRES;
}
