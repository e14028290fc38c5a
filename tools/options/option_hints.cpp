#include "tools/options/option_hints.h"

#include <algorithm>
#include <array>

namespace voca::tools {
namespace {

/// A row applies to commands that have the option `needs`; the first match is used.
struct Hint {
  std::string_view names;  ///< separated by spaces; a trailing * matches any ending
  std::string_view needs;
  std::string_view text;  ///< prefixed with "use " if it begins with an option
};

constexpr std::string_view kLaunch =
    "voca-engine launch starts the ranks (--nproc_per_node N, --nnodes N, before -- train), and torchrun and "
    "srun do";
constexpr std::string_view kOneNode = "without --nnodes a job is of one node; leave it out";
constexpr std::string_view kAlways = "it is always so; leave it out";

constexpr std::array kHints{
    // Ranks: on the command that each rank runs.
    Hint{"local_rank", "features_root",
         "launch, torchrun and srun say it in the environment; leave it out (python -m "
         "torch.distributed.launch: "
         "add --use_env)"},
    Hint{"standalone rdzv_* nproc_per_node nproc nnodes node_rank num_nodes num_processes master_addr "
         "master_port max_restarts rank world_size dist_url dist_backend dist_on_itp backend init_method "
         "distributed ddp multiprocessing_distributed",
         "epochs", kLaunch},
    Hint{"gpus num_gpus n_gpu n_gpus ngpus gpu_ids device_ids", "epochs",
         "one rank uses one GPU: voca-engine launch --nproc_per_node N -- train ...; --device cuda:N chooses "
         "one"},
    Hint{"nproc_per_node nnodes rdzv_* standalone gpus num_gpus", "features_root",
         "voca-engine launch --nproc_per_node N -- starts a command on several ranks"},
    Hint{"find_unused_parameters sync_bn sync_batchnorm static_graph broadcast_buffers", "epochs",
         "gradients of all ranks are averaged, and nothing else needs it; leave it out"},
    // Ranks: on launch.
    Hint{"standalone", "nproc_per_node", kOneNode},
    Hint{"rdzv_endpoint", "nproc_per_node", "--master_addr HOST and --master_port PORT: where rank 0 is"},
    Hint{"rdzv_backend rdzv_id rdzv_conf", "nproc_per_node",
         "ranks find each other by --master_addr and --master_port; leave it out"},
    Hint{"nprocs nproc num_processes np ntasks ntasks_per_node gpus num_gpus world_size", "nproc_per_node",
         "--nproc_per_node N: ranks on each node"},
    Hint{"nodes num_nodes num_machines", "nproc_per_node", "--nnodes N"},
    Hint{"machine_rank rank", "nproc_per_node", "--node_rank N"},
    Hint{"main_process_ip host", "nproc_per_node", "--master_addr HOST"},
    Hint{"main_process_port port", "nproc_per_node", "--master_port PORT"},
    Hint{"no_python module m use_env run_path start_method monitor_interval role multi_gpu", "nproc_per_node",
         "launch starts and watches ranks of this program alone; leave it out"},
    Hint{"log_dir redirects tee r t local_ranks_filter", "nproc_per_node",
         "all ranks print here, each line with its rank; leave it out"},
    Hint{"local_addr", "nproc_per_node", "--master_addr HOST: an address that all nodes reach"},
    Hint{"features_root batch_size epochs lr seed device threads precision hidden num_layers num_heads "
         "seq_len num_workers run_dir save_path save_last resume init_from checkpoint split out quiet json "
         "overwrite",
         "nproc_per_node", "it is an option of the command: write it after --"},
    // Numbers and memory.
    Hint{"amp use_amp mixed_precision autocast dtype torch_dtype compute_dtype half", "precision",
         "--precision bf16, fp16, tf32 or fp32; auto is bf16 on a GPU"},
    Hint{"bf16 bfloat16", "precision", "--precision bf16"},
    Hint{"fp16 float16", "precision", "--precision fp16"},
    Hint{"tf32 allow_tf32", "precision", "--precision tf32"},
    Hint{"fp32 float32", "precision", "--precision fp32"},
    Hint{"grad_scaler loss_scale scaler init_scale", "precision",
         "--precision fp16, which scales the loss by itself"},
    Hint{"no_cuda no_gpu use_cpu", "device", "--device cpu"},
    Hint{"use_cuda use_gpu", "device", "--device cuda"},
    Hint{"gpu gpu_id device_id cuda_device", "device", "--device cuda:N"},
    Hint{"gradient_checkpointing activation_checkpointing use_checkpoint grad_checkpointing", "recompute",
         "--recompute"},
    Hint{"compile torch_compile cudnn_benchmark benchmark channels_last", "precision",
         "there is nothing to compile or to choose; leave it out"},
    Hint{"deterministic cudnn_deterministic", "seed", kAlways},
    Hint{"random_seed manual_seed rng_seed", "seed", "--seed S"},
    Hint{"num_threads nthreads omp_num_threads", "threads", "--threads N"},
    // Data.
    Hint{"data data_path data_dir data_root data_folder dataset dataset_path dataset_dir root root_dir "
         "features feature_root feature_dir features_dir features_path feats input input_dir train_dir",
         "features_root", "--features_root PATH"},
    Hint{"workers num_worker nworkers n_workers jobs dataloader_num_workers j", "num_workers",
         "--num_workers N"},
    Hint{"bs b batch batchsize train_batch_size per_gpu_batch_size per_device_train_batch_size "
         "eval_batch_size val_batch_size",
         "batch_size", "--batch_size B"},
    Hint{"val_split val_ratio test_split test_ratio train_ratio train_split valid_size test_size val_size",
         "split_ratios", "--split_ratios A,B,C: of train, val and test"},
    Hint{"prefetch_factor persistent_workers shuffle drop_last", "num_workers", kAlways},
    Hint{"max_len max_length max_seq_len sequence_length seq_length num_frames n_frames clip_len", "seq_len",
         "--seq_len FRAMES"},
    Hint{"augment augmentation aug", "augment_prob", "--augment_prob P"},
    // Files.
    Hint{"output_dir out_dir output outdir log_dir logdir exp_dir experiment_dir work_dir workdir save_dir "
         "results_dir checkpoint_dir default_root_dir tensorboard_dir",
         "run_dir", "--run_dir DIR for the records, --save_path F.pt for the best checkpoint"},
    Hint{"save save_model model_save_path best_path save_best", "save_path", "--save_path F.pt"},
    Hint{"output output_path output_file output_dir output_csv csv save_path save_csv", "out", "--out FILE"},
    Hint{"ckpt ckpt_path checkpoint_path model model_path model_file weights weights_path resume resume_from "
         "pretrained load load_path load_from save_path",
         "checkpoint", "--checkpoint F.pt"},
    Hint{
        "ckpt ckpt_path checkpoint checkpoint_path model_path weights weights_path pretrained load load_path "
        "load_from load_weights finetune",
        "init_from", "--init_from F.pt to start from its weights, --resume to continue a run"},
    Hint{"resume_from resume_from_checkpoint continue auto_resume resume_path", "resume",
         "--resume auto|PATH"},
    Hint{"wandb wandb_project project tensorboard use_tensorboard tb logger report_to exp_name run_name name",
         "run_dir", "the records of a run, for TensorBoard too, go to --run_dir"},
    Hint{"print_freq log_interval log_freq logging_steps log_steps print_every", "log_every",
         "--log_every STEPS"},
    Hint{"save_freq save_every save_interval save_steps ckpt_every checkpoint_interval", "checkpoint_every",
         "--checkpoint_every N[steps|epochs]"},
    Hint{"save_total_limit keep_last", "keep", "--keep N"},
    Hint{"verbose v debug", "quiet", "it is the usual; --quiet is the other way"},
    // The model.
    Hint{"dropout_rate drop drop_rate dropout_p dropout_prob attn_dropout", "dropout", "--dropout P"},
    Hint{"hidden_size hidden_dim d_model embed_dim embedding_dim model_dim dim width", "hidden",
         "--hidden H"},
    Hint{"layers depth n_layers nlayers num_hidden_layers num_encoder_layers n_layer", "num_layers",
         "--num_layers L"},
    Hint{"heads n_heads nheads nhead n_head num_attention_heads", "num_heads", "--num_heads N"},
    Hint{"n_classes nb_classes classes", "num_classes", "--num_classes K"},
    Hint{"arch model_name network", "model", "--model NAME"},
    // Losses, optimiser, schedule.
    Hint{"contrastive use_infonce infonce", "use_contrastive", "--use_contrastive"},
    Hint{"contrastive_loss_weight lambda_contrastive lambda_con con_weight infonce_weight",
         "contrastive_weight", "--contrastive_weight W"},
    Hint{"smoothing label_smooth ls", "label_smoothing", "--label_smoothing S"},
    Hint{"class_weight class_weights positive_weight", "pos_weight", "--pos_weight W|auto"},
    Hint{"learning_rate base_lr init_lr max_lr peak_lr", "lr", "--lr LR"},
    Hint{"wd l2", "weight_decay", "--weight_decay W"},
    Hint{"num_epochs n_epochs nepochs max_epochs num_train_epochs epoch", "epochs", "--epochs E"},
    Hint{"num_steps max_iters iterations total_steps max_train_steps", "max_steps", "--max_steps N"},
    Hint{"warmup warmup_steps warmup_ratio num_warmup_steps", "warmup_epochs", "--warmup_epochs W"},
    Hint{"scheduler lr_scheduler sched lr_schedule", "schedule", "--schedule epoch|step"},
    Hint{"clip clip_grad grad_clip gradient_clip gradient_clip_val clip_norm max_norm clip_grad_norm",
         "max_grad_norm", "--max_grad_norm NORM"},
    Hint{"accumulation_steps accum_steps accum_iter gradient_accumulation_steps grad_accum_steps "
         "accumulate_grad_batches update_freq",
         "grad_accum", "--grad_accum N"},
    Hint{"optimizer optim opt adamw fused", "weight_decay", "the optimiser is AdamW; leave it out"},
    // Evaluation.
    Hint{"eval_freq val_every eval_interval val_interval val_freq eval_steps check_val_every_n_epoch",
         "eval_every", "--eval_every EPOCHS"},
    Hint{"metric monitor best_metric metric_for_best_model", "select_by", "--select_by MEASURE"},
    Hint{"patience early_stopping early_stop", "select_by",
         "training runs all --epochs and keeps the best by --select_by; leave it out"},
    Hint{"threshold thr", "checkpoint", "the one fitted on val is in the checkpoint; leave it out"},
    Hint{"set subset partition mode", "split", "--split train|val|test"},
};

bool lists(std::string_view names, std::string_view name) {
  while (!names.empty()) {
    const std::size_t space = std::min(names.find(' '), names.size());
    const std::string_view one = names.substr(0, space);
    if (one == name) return true;
    if (one.ends_with('*') && name.starts_with(one.substr(0, one.size() - 1))) return true;
    names.remove_prefix(std::min(space + 1, names.size()));
  }
  return false;
}

}  // namespace

std::string option_hint(std::string_view name, const std::function<bool(std::string_view)>& has) {
  const auto hint = std::find_if(kHints.begin(), kHints.end(),
                                 [&](const Hint& h) { return has(h.needs) && lists(h.names, name); });
  if (hint == kHints.end()) return {};
  return (hint->text.starts_with("--") ? "use " : "") + std::string(hint->text);
}

}  // namespace voca::tools
