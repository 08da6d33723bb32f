"""The fields of Hugging Face's TrainingArguments and TRL's SFTConfig and ModelConfig, by what they mean for a step's memory.

By transformers 4.40 to 5.23 (training_args.py) and TRL 0.9 to 1.6 (sft_config.py, base_config.py, model_config.py). A test holds that every
field of the installed TrainingArguments has its place here.
"""

from __future__ import annotations

READ = frozenset(
    (
        *("model_name_or_path", "per_device_train_batch_size", "gradient_accumulation_steps", "model_init_kwargs"),
        *("max_length", "max_seq_length", "block_size", "bf16", "fp16", "dtype", "torch_dtype", "optim", "optim_args", "weight_decay"),
        *("activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing", "gradient_checkpointing_kwargs"),
        *("attn_implementation", "use_flash_attention_2", "use_peft", "lora_r", "lora_alpha", "lora_target_modules", "lora_dropout"),
        *("load_in_4bit", "use_bnb_nested_quant", "activation_offloading"),
    )
)
"""What becomes part of the job."""

TRL_ONLY = frozenset(
    (
        *("model_name_or_path", "model_init_kwargs", "max_length", "use_peft", "packing", "packing_strategy", "padding_free"),
        *("eval_packing", "dataset_text_field", "dataset_kwargs", "completion_only_loss", "assistant_only_loss", "loss_type"),
        *("activation_offloading", "chat_template_path", "truncation_mode", "shuffle_dataset"),
    )
)
"""What only TRL's files have: then TRL's defaults hold for what is absent."""

_QUANTIZED = "of weights in fewer bits, load_in_4bit alone is. Take it out, and set dtype to what the rest of the model is kept in"
REFUSED: dict[str, str] = {
    "torch_compile": "compiling fuses operators and plans memory anew. Take it out to see the eager model, or measure the compiled one",
    "torch_compile_backend": "it switches torch_compile on, which plans memory anew. Take it out to see the eager model",
    "torch_compile_mode": "it switches torch_compile on, which plans memory anew. Take it out to see the eager model",
    "load_in_8bit": _QUANTIZED,
    "quantization_config": _QUANTIZED,
}
"""What changes nearly every number and is not modelled, and why."""

NOT_MODELLED: dict[str, str] = {
    "auto_find_batch_size": "the batch may become smaller",
    "deepspeed": "states are divided or offloaded",
    "device_map": "layers may lie on other devices",
    "fp8": "products in 8 bits keep other activations",
    "fsdp": "parameters, gradients and optimizer state are divided among GPUs",
    "full_determinism": "cuBLAS gets other workspaces, and attention other kernels",
    "label_smoothing_factor": "the loss makes log-probabilities of its own",
    "lora_modules_to_save": "whole layers are trained beside the adapters",
    "lora_target_parameters": "parameters outside of linear layers get adapters",
    "max_memory": "layers may lie on other devices",
    "neftune_noise_alpha": "noise as large as the embeddings is made in every step",
    "optim_target_modules": "only some layers are optimized so",
    "packing": "sequences are joined, and TRL may drop the batch dimension",
    "pad_to_multiple_of": "sequences are padded beyond the length given here",
    "padding_free": "the batch becomes one sequence without padding",
    "parallelism_config": "the model is divided among GPUs",
    "torch_empty_cache_steps": "cached memory is given back between steps, so less is reserved",
    "tp_plan": "the model is divided among GPUs",
    "tp_size": "the model is divided among GPUs",
    "use_cache": "keys and values are kept in forward",
    "use_dora": "adapters have a magnitude vector and its gradient too",
    "use_liger_kernel": "fused kernels keep fewer activations, and logits may not exist as a whole",
}
"""What changes memory where it is set and is not modelled, and how."""

HARMLESS = frozenset(
    (
        *("output_dir", "overwrite_output_dir", "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type"),
        *("lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("average_tokens_across_devices", "max_grad_norm", "bf16_full_eval", "fp16_full_eval", "tf32", "liger_kernel_config"),
        *("logging_strategy", "logging_steps", "logging_first_step", "logging_dir", "log_on_each_node", "logging_nan_inf_filter"),
        *("include_num_input_tokens_seen", "include_tokens_per_second", "log_level", "log_level_replica", "disable_tqdm", "report_to"),
        *("run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "eval_strategy"),
        *("evaluation_strategy", "eval_steps", "eval_delay", "per_device_eval_batch_size", "prediction_loss_only", "eval_on_start"),
        *("eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps", "include_for_metrics"),
        *("include_inputs_for_metrics", "batch_eval_metrics", "save_only_model", "save_strategy", "save_steps", "save_on_each_node"),
        *("save_total_limit", "save_safetensors", "enable_jit_checkpoint", "push_to_hub", "hub_token", "hub_private_repo"),
        *("hub_model_id", "hub_strategy", "hub_always_push", "hub_revision", "push_to_hub_token", "push_to_hub_model_id"),
        *("push_to_hub_organization", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "ignore_data_skip"),
        *("restore_callback_states_from_checkpoint", "seed", "data_seed", "use_cpu", "no_cuda", "use_mps_device", "accelerator_config"),
        *("dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order", "remove_unused_columns"),
        *("label_names", "train_sampling_strategy", "group_by_length", "length_column_name", "past_index", "ray_scope"),
        *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend"),
        *("ddp_timeout", "fsdp_config", "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap", "debug", "skip_memory_metrics"),
        *("do_train", "do_eval", "do_predict", "resume_from_checkpoint", "local_rank", "tpu_num_cores", "tpu_metrics_debug"),
        *("torchdynamo", "jit_mode_eval", "use_ipex", "use_legacy_prediction_loop", "mp_parameters", "fp16_backend"),
        *("fp16_opt_level", "half_precision_backend", "split_batches", "dispatch_batches", "per_gpu_train_batch_size"),
        *("per_gpu_eval_batch_size", "_n_gpu"),
        # TRL: SFTConfig, ModelConfig and the script's own.
        *("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "dataset_batch_size", "eos_token", "pad_token"),
        *("chat_template_path", "truncation_mode", "shuffle_dataset", "eval_packing", "packing_strategy", "completion_only_loss"),
        *("assistant_only_loss", "loss_type", "num_of_sequences", "chars_per_token", "model_revision", "trust_remote_code"),
        *("lora_task_type", "use_rslora", "lora_bias", "bnb_4bit_quant_type", "bnb_4bit_quant_storage"),
        *("bnb_4bit_compute_dtype", "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split"),
        *("dataset_streaming", "dataset_mixture", "datasets", "streaming", "ignore_bias_buffers"),
        *("env", "config", "accelerate_config", "num_processes", "revision", "low_cpu_mem_usage", "cache_dir", "token"),
        *("local_files_only", "ignore_mismatched_sizes", "tokenizer_name_or_path"),
    )
)
"""What the memory of a training step does not depend on."""
