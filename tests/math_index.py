"""Which formula of MATH.md is tested where.

number -> tests ("module::test"), or a reason why it is not in the library.
`test_math_index` checks that every named test exists and that no number of
sections 1 to 4, 6, 8 and 9 is missing.
"""

S, L, T, P, D, W, O, B = (
  "test_schedules",
  "test_levels",
  "test_targets",
  "test_predictors",
  "test_densities",
  "test_weightings",
  "test_objectives",
  "test_bound",
)
M, ML = "test_flow_maps", "test_flow_map_losses"
STATIONARY = f"{ML}::test_the_exact_map_is_stationary_and_the_loss_is_as_stated"
PRINTED = f"{S}::test_logsnr_is_as_printed"

INDEX = {
  "0.1": [f"{S}::test_one_schedule"],
  "0.2": ["test_sde::test_g2_is_minus_sigma2_times_the_slope_of_logsnr"],
  "0.3": ["test_sde::test_kappa_eta_and_churn_are_one_dial"],
  "1.1": [
    f"{L}::test_levels_of_every_schedule",
    f"{L}::test_norms_of_the_scales",
  ],
  "1.2": [PRINTED, f"{S}::test_ddpm_table_is_near_vp_linear"],
  "1.3": [PRINTED],
  "1.4": [PRINTED],
  "1.5": [PRINTED, f"{S}::test_iddpm_clips_its_last_row_alone"],
  "1.6": [PRINTED],
  "1.7": [PRINTED],
  "1.8": [PRINTED],
  "1.9": [PRINTED],
  "1.10": [PRINTED, f"{S}::test_karras_tends_to_geometric_as_rho_grows"],
  "1.11": [PRINTED],
  "1.12": [PRINTED],
  "1.13": [PRINTED, f"{L}::test_the_papers_alpha_and_sigma"],
  "1.14": [PRINTED, f"{S}::test_shifts_compose_and_invert"],
  "1.15": [PRINTED],
  "1.16": [
    f"{S}::test_a_learned_schedule_has_exact_ends_and_is_monotone",
    f"{B}::test_the_bound_does_not_depend_on_the_path_between_its_ends",
  ],
  "1.17": [PRINTED, f"{S}::test_zero_terminal_snr"],
  "1.18": [
    f"{P}::test_x_and_eps_carry_over_to_any_scale",
    f"{P}::test_x_and_eps_carry_over_from_any_schedule",
    f"{P}::test_levels_outside_the_trained_range_are_clipped",
  ],
  "1.19": [f"{P}::test_velocity_is_transported_by_the_chain_rule"],
  "2.1": [f"{T}::test_the_rows_are_the_papers"],
  "2.2": [
    f"{T}::test_every_conversion_is_the_wanted_row_of_x_and_eps",
    f"{T}::test_conversions_are_affine_with_the_printed_slope_and_offset",
  ],
  "2.3": [f"{T}::test_every_conversion_is_the_wanted_row_of_x_and_eps"],
  "2.4": [f"{T}::test_errors_scale_by_the_determinant"],
  "2.5": [f"{T}::test_gains_at_both_ends"],
  "2.6": [
    f"{T}::test_the_rows_are_the_papers",
    f"{T}::test_f_with_unit_data_is_minus_v",
  ],
  "3.1": [f"{O}::test_the_expected_loss_does_not_depend_on_the_density"],
  "3.2": [
    f"{W}::test_the_gain_is_the_ratio_of_errors",
    f"{W}::test_u_mse_is_half_g_squared_and_likelihood_weighting",
  ],
  "3.3": [
    f"{D}::test_densities_are_their_closed_forms",
    f"{D}::test_laws_of_time_are_the_papers",
  ],
  "3.4": [f"{W}::test_implied_weightings_are_their_closed_forms"],
  "3.5": [f"{W}::test_a_falling_weighting_is_an_average_of_bounds"],
  "3.6": [
    f"{D}::test_uniforms_are_uniform_stratified_shuffled_and_never_0_or_1"
  ],
  "3.7": [f"{W}::test_the_best_density_follows_the_second_moment"],
  "3.8": [
    f"{D}::test_the_adaptive_density_tends_to_the_weighted_loss",
    f"{D}::test_the_adaptive_density_does_not_move_the_expected_loss",
  ],
  "3.9": [
    "test_gaussians::test_the_bound_is_tight_for_every_single_x",
    "test_gaussians::test_mutual_information_is_half_the_integral_of_the_mmse",
    f"{B}::test_prior_and_decoder_by_quadrature",
  ],
  "3.10": [f"{B}::test_t_steps_approach_continuous_time_from_above"],
  "3.11": [
    f"{B}::test_the_bound_is_tight_for_discrete_data",
    f"{B}::test_bits_of_densities",
  ],
  "3.12": [
    f"{W}::test_learned_uncertainty_finds_the_log_of_the_loss",
    f"{W}::test_the_penalty_is_in_the_loss_and_trains",
  ],
  "4.1": ["test_sde::test_the_marginal_field_moves_the_density"],
  "4.2": [
    "test_faces::test_conditional_and_marginal_losses_differ_by_a_constant"
  ],
  "4.3": ["test_sde::test_velocity_and_score_are_one_prediction"],
  "4.4": [
    "test_sde::test_marginals_are_kept_for_every_eta",
    "test_sde::test_eta_one_is_the_reverse_of_the_forward_process",
    "test_sde::test_generation_in_the_lectures_time_keeps_the_marginals",
  ],
  "4.5": ["test_sde::test_conditional_fields_are_the_papers"],
  "4.6": [
    "test_sde::test_velocity_and_score_are_one_prediction",
    "test_faces::test_conditional_flow_matching_is_the_lectures",
  ],
  "6.1": ["test_sde::test_alpha_and_sigma_come_back_from_f_and_g"],
  "6.2": ["test_sde::test_kappa_eta_and_churn_are_one_dial"],
  "6.3": ["test_sde::test_f_and_g2_are_the_papers"],
  "8.1": [f"{M}::test_a_flow_map_is_a_row_with_two_levels"],
  "8.2": [f"{M}::test_a_flow_map_is_a_row_with_two_levels"],
  "8.3": [f"{M}::test_two_legs_are_one"],
  "8.4": [f"{M}::test_exact_maps_agree_with_the_ode_and_with_each_other"],
  "8.5": [
    f"{M}::test_a_flow_map_is_a_row_with_two_levels",
    f"{ML}::test_losses_do_not_depend_on_target_or_scale",
  ],
  "8.6": [f"{M}::test_both_ends_are_exact"],
  "8.7": [
    f"{M}::test_two_legs_are_one",
    f"{M}::test_weights_are_finite_at_both_ends",
  ],
  "8.8": [f"{M}::test_the_equations_of_the_map"],
  "8.9": [
    f"{M}::test_the_equations_of_the_map",
    f"{ML}::test_right_hand_sides_are_held_fixed",
  ],
  "8.10": [f"{ML}::test_losses_do_not_depend_on_target_or_scale"],
  "8.11": [f"{M}::test_one_round_of_reflow_makes_a_gaussian_straight"],
  "8.12": [f"{M}::test_reflow_of_a_mixture_is_straight_and_keeps_its_law"],
  "8.13": [f"{ML}::test_one_step_learned_from_solved_pairs"],
  "8.14": [
    STATIONARY,
    f"{M}::test_a_linear_student_is_its_teacher_in_half_the_steps",
  ],
  "8.15": "weights are the objective's: 3.4 has SNR + 1 and max(SNR, 1)",
  "8.16": [
    f"{M}::test_a_linear_student_is_its_teacher_in_half_the_steps",
    f"{M}::test_steps_of_students_and_shortcuts",
  ],
  "8.17": [f"{M}::test_consistency_models_row_has_a_destination"],
  "8.18": [f"{ML}::test_a_finite_gap_moves_consistency"],
  "8.19": [
    f"{M}::test_neighbours_on_a_growing_grid_are_improved_consistencys",
    f"{ML}::test_right_hand_sides_are_held_fixed",
  ],
  "8.20": [f"{M}::test_easy_pairs_begin_as_denoising_and_close"],
  "8.21": [STATIONARY],
  "8.22": [
    f"{ML}::test_weights_of_single_examples_move_a_skewed_fixed_point",
    f"{ML}::test_warming_up_begins_as_diffusion_training",
  ],
  "8.23": [STATIONARY],
  "8.24": [f"{ML}::test_guided_mean_flow_learns_the_map_of_the_guided_field"],
  "8.25": [STATIONARY, f"{ML}::test_right_hand_sides_are_held_fixed"],
  "8.26": [f"{ML}::test_guided_mean_flow_learns_the_map_of_the_guided_field"],
  "8.27": [
    f"{M}::test_two_times_are_the_noisier_and_the_cleaner",
    f"{M}::test_weights_of_single_examples_are_gradients_of_their_potentials",
    f"{ML}::test_weights_of_single_examples_move_a_skewed_fixed_point",
  ],
  "8.28": [STATIONARY, f"{M}::test_steps_of_students_and_shortcuts"],
  "8.29": [
    STATIONARY,
    f"{ML}::test_the_eulerian_loss_with_one_noise_shrinks_the_jacobian",
  ],
  "8.30": [STATIONARY],
  "8.31": [STATIONARY, f"{ML}::test_a_finite_gap_moves_consistency"],
  "8.32": [STATIONARY],
  "8.33": [
    "test_flow_map_sampling::"
    "test_marginals_are_exact_at_any_step_told_the_right_level"
  ],
  "9.1": [
    "test_closed_form::test_denoiser_and_density_match_quadrature",
    "test_closed_form::test_score_is_the_gradient_of_log_prob",
    "test_gaussians::test_mixture_covariance_is_the_jacobian_of_x_hat",
  ],
  "9.2": ["test_gaussians::test_gaussian_by_linear_algebra"],
  "9.3": ["test_gaussians::test_the_flow_map_follows_the_ode"],
  "9.4": ["test_closed_form::test_flow_map_follows_the_probability_flow_ode"],
  "9.5": [
    "test_sampling::test_damping_is_one_for_a_fine_grid_and_shows_an_overshoot"
  ],
  "9.6": [
    "test_gaussians::test_the_bound_is_tight_for_every_single_x",
    "test_gaussians::test_path_kl_in_three_dimensions_is_the_difference_of_kls",
  ],
}

# notes under a number, and where they are
NOTES = {
  "1.5b": [f"{S}::test_iddpm_clips_its_last_row_alone"],
  "1.8b": "a beta table that others call sigmoid: any table is beta_table",
  "1.9b": "a remark on the VE SDE's start: the kernel is what is implemented",
  "1.10b": [f"{S}::test_karras_tends_to_geometric_as_rho_grows"],
  "1.13b": [f"{L}::test_the_papers_alpha_and_sigma"],
  "1.14b": [
    f"{S}::test_shifts_compose_and_invert",
    f"{S}::test_schedules_by_name_are_the_papers",
  ],
  "1.16b": [
    f"{O}::test_a_learned_schedule_follows_the_bound_and_the_variance",
    f"{B}::test_the_bound_does_not_depend_on_the_path_between_its_ends",
  ],
}
