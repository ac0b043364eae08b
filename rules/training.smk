# Weights that are trained here. Those of RDE-VOS are part of a study that names them (`training:` in the config): each
# stage ends in weights that the next one begins with, in a folder whose name holds a digest of what decides them, so
# that trainings share the stages which they have in common. What is needed to go on after a kill lies beside them,
# undeclared: Snakemake deletes declared outputs when a job fails.
# What does not decide weights (workers, hours, how often something is written, where training sets are) comes to the job
# by environment variables and not by `params`: else Snakemake would delete finished weights when it changes, and start
# the job again.


from vosflow.training.planning import demo_sets_code, stage_variables
from vosflow.training.rde.files import CURVES, SAMPLES, WEIGHTS
from vosflow.training.review import review_trainings

os.environ.update(stage_variables(study.config.execution.device, study.trainings))
if workflow.is_main_process:
    review_trainings(study.trainings, DATA, announce=logger.warning)


rule make_demo_training_sets:
    """Draw small training sets by the demo generator, in the layouts of the real ones."""
    output:
        f"{DATA}/training/demo_sets.json",
    log:
        f"{DATA}/logs/make_demo_training_sets.log",
    benchmark:
        f"{DATA}/logs/make_demo_training_sets.benchmark.tsv"
    conda:
        CONDA
    threads: 2
    resources:
        mem_mb=1_000,
        runtime=10,
    params:
        folder=lambda wildcards, output: output[0].removesuffix(".json"),
        code=demo_sets_code(),
    shell:
        'python "$VOSFLOW"/scripts/make_demo_training_sets.py --output {params.folder:q} --marker {output:q}'
        " --workers {threads} > {log:q} 2>&1"


rule train_rde_stage:
    """Train one stage of RDE-VOS on GPUs; goes on where a killed job stopped."""
    input:
        lambda wildcards: stage_of(wildcards).inputs,
    output:
        weights=f"{DATA}/training/rde/stage{{stage}}-{{made}}/{WEIGHTS}",
        curves=f"{DATA}/training/rde/stage{{stage}}-{{made}}/{CURVES}",
        samples=f"{DATA}/training/rde/stage{{stage}}-{{made}}/{SAMPLES}",
    log:
        f"{DATA}/logs/train_rde_stage{{stage}}-{{made}}.log",
    benchmark:
        f"{DATA}/logs/train_rde_stage{{stage}}-{{made}}.benchmark.tsv"
    wildcard_constraints:
        stage=study.stage_pattern(gpus=True),
    priority: 1  # later stages wait for it, and tracking with its weights does not
    conda:
        CONDA
    threads: lambda wildcards: stage_of(wildcards).threads
    resources:
        gpu=lambda wildcards: stage_of(wildcards).gpus,
        nodes=1,
        cpus_per_task=lambda wildcards: stage_of(wildcards).threads,  # threads are cut to what the login node has
        mem_mb=lambda wildcards, attempt: stage_of(wildcards).mem_mb * attempt,
        runtime=lambda wildcards: stage_of(wildcards).minutes,
    params:
        plan=lambda wildcards: canonical_json(stage_of(wildcards).plan.deciding()),
        folder=lambda wildcards: stage_of(wildcards).folder,
        practical=lambda wildcards: stage_of(wildcards).variable,
    shell:
        'python "$VOSFLOW"/scripts/train_rde.py --plan {params.plan:q} --folder {params.folder:q}'
        ' --practical "${params.practical}" --device "$VOSFLOW_TRAINING_DEVICE" 2>&1 | tee {log:q}'


use rule train_rde_stage as train_rde_stage_on_cpu with:
    wildcard_constraints:
        stage=study.stage_pattern(gpus=False),
    resources:
        nodes=1,
        cpus_per_task=lambda wildcards: stage_of(wildcards).threads,
        mem_mb=lambda wildcards, attempt: stage_of(wildcards).mem_mb * attempt,
        runtime=lambda wildcards: stage_of(wildcards).minutes,


rule train_demo_sam2:
    """Train the demo's SAM 2 from scratch on clips of the demo generator with other seeds; resumes after a kill."""
    output:
        f"{DATA}/training/sam2_demo.safetensors",
    log:
        f"{DATA}/logs/train_demo_sam2.log",
    benchmark:
        f"{DATA}/logs/train_demo_sam2.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=4_000,
        runtime=360,
    params:
        work=f"{DATA}/training/sam2_demo.work.pt",
        code=code_digest("vosflow.training.demo_sam2"),
    shell:
        'OMP_NUM_THREADS={threads} python "$VOSFLOW"/scripts/train_demo_sam2.py --work {params.work:q} --export {output:q}'
        " 2>&1 | tee {log:q}"
