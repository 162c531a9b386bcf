"""A search for the best settings with Optuna: what is searched, what is asked and told."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig

from lora_sam.cli.study import STUDY, is_search, mend, open_study
from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.core.seeds import seed_for
from lora_sam.runs.status import read_status

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial, TrialState

_FIRST = 10  # jobs after which is looked whether they can be compared: it takes the longer the more there are
_OF = "of"  # names the job of a trial that is its second: Optuna changes none that has ended

Launch: TypeAlias = "Callable[[Sequence[Sequence[str]], int], Sequence[Any]]"


def check_search(config: DictConfig) -> None:
    """Exit with 2 and a line where Optuna is to search what cannot be searched."""
    from lora_sam.cli import report

    if not is_search(config):
        return
    try:
        _check_options(config.hydra.sweeper)
        space_of(_parsed(config, [str(text) for text in config.hydra.overrides.task]))
    except HydraException:  # who composes the jobs will say so
        return
    except LoraSamError as error:
        raise SystemExit(report(str(error).splitlines())) from error


def _check_options(options: DictConfig) -> None:
    for key, least in (("n_trials", 1), ("batch_size", 1), ("seed", 0), ("startup_trials", 1), ("prune_warmup", 0)):
        if options[key] < least:
            raise ConfigError(f"hydra.sweeper.{key} = {options[key]}: must be {least} or more")


def _parsed(config: DictConfig, arguments: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    params = config.hydra.sweeper.get("params") or {}
    return parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *arguments])


def space_of(overrides: Sequence[Override]) -> dict[str, BaseDistribution]:
    """What is searched, by key: `a,b` and `choice()`, `range()`, `interval()`; `tag(log, ...)` in orders of magnitude.

    `interval` is of real numbers, `int(interval())` of whole ones, with both ends; `range` is without its end.

    Raises:
        ConfigError: nothing is, or what has no such values.
    """
    space = {override.get_key_element(): _distribution(override) for override in overrides if _is_searched(override)}
    if "seed" in space:
        raise ConfigError(
            "hydra/sweeper=optuna: a seed is nothing to search; leave out seeds= and seed=, and run the best "
            "settings with several seeds afterwards"
        )
    if not space:
        raise ConfigError(
            "hydra/sweeper=optuna: nothing is searched; give a key several values, e.g. method.rank=4,8,16 or "
            "'optim.lr=tag(log, interval(1e-5, 1e-2))'"
        )
    return space


def _is_searched(override: Override) -> bool:
    return bool(override.is_sweep_override())


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            low: Any = value.start
            high: Any = value.end
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(low, high, log=log)
        texts = list(override.sweep_string_iterator())
        numbers = isinstance(value, RangeSweep) and not value.shuffle and value.step > 0 and len(texts) > 1
        if numbers and all(isinstance(part, int) for part in (value.start, value.step)):
            return IntDistribution(int(texts[0]), int(texts[-1]), log=log, step=int(value.step))
        if log:
            raise ConfigError(f"{override.input_line}: tag(log, ...) is for interval() and a range() of whole numbers")
        if numbers:
            count = len(texts) - 1
            return FloatDistribution(value.start, value.start + count * value.step, step=value.step)
        return CategoricalDistribution(texts)
    except LoraSamError:
        raise
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: cannot be searched ({' '.join(str(error).split())})") from error


class Search:
    """A study of Optuna in the directory of a sweep; the number of a trial is that of its job."""

    def __init__(self, directory: Path, config: DictConfig, arguments: Sequence[str]) -> None:
        """Begin it, or go on with what is there.

        Args:
            directory: That of the sweep.
            config: The configuration of Hydra.
            arguments: Overrides as they were typed.
        """
        self._options = config.hydra.sweeper
        self._overrides = _parsed(config, arguments)
        self._space = space_of(self._overrides)
        mend(directory / STUDY)
        self._study = open_study(directory, self._options)

    def jobs(self) -> dict[int, list[str]]:
        """Overrides of every job that was asked for, by number."""
        from optuna.trial import Trial, TrialState

        found = {}
        for trial in self._study.get_trials(deepcopy=False):
            if _OF in trial.user_attrs:
                continue
            if trial.state == TrialState.RUNNING:  # of a command that was killed, perhaps while it chose
                self._choose(Trial(self._study, trial._trial_id), trial.number)
        for trial in self._study.get_trials(deepcopy=False):
            if _OF not in trial.user_attrs:
                found[trial.number] = self._texts(trial.params)
        return found

    def ask(self, count: int) -> dict[int, list[str]]:
        """Overrides of the next jobs, by number."""
        found = {}
        for _ in range(count):
            number = len(self._study.get_trials(deepcopy=False))
            self._study.sampler = self._sampler(number)
            trial = self._study.ask()
            self._choose(trial, number)
            found[trial.number] = self._texts(trial.params)
        return found

    def tell(self, job: int, state: TrialState, value: float) -> None:
        """What became of a job; of one that was told before only what is better than a failure."""
        from optuna.trial import TrialState, create_trial

        trial = self._trial(job)
        ended = value if state == TrialState.COMPLETE else None
        if not trial.state.is_finished():
            self._study.tell(trial.number, ended, state=state)
        elif trial.state == TrialState.FAIL and state != TrialState.FAIL:
            again = create_trial(
                state=state,
                value=value,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={_OF: job},
                intermediate_values=trial.intermediate_values,
            )
            self._study.add_trial(again)

    def _trial(self, job: int) -> FrozenTrial:
        trials = self._study.get_trials(deepcopy=False)
        return next((trial for trial in reversed(trials) if trial.user_attrs.get(_OF) == job), trials[job])

    def _choose(self, trial: Trial, number: int) -> None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        self._study.sampler = self._sampler(number)
        for key, values in self._space.items():
            if isinstance(values, IntDistribution):
                trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
            elif isinstance(values, FloatDistribution):
                trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)
            else:
                assert isinstance(values, CategoricalDistribution)
                trial.suggest_categorical(key, values.choices)

    def _sampler(self, number: int) -> Any:
        """Of one job: its seed depends on the number of the job, so that a search that goes on chooses the same."""
        import warnings

        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import TPESampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(
                seed=seed_for(self._options.seed, "search", number) % 2**32,
                n_startup_trials=self._options.startup_trials,
                constant_liar=self._options.batch_size > 1,
            )

    def _texts(self, values: dict[str, Any]) -> list[str]:
        texts = []
        for override in self._overrides:
            key = override.get_key_element()
            value = values[key] if key in values else override.get_value_element_as_str()
            # steps of a range add up to 0.30000000000000004
            texts.append(f"{key}={float(f'{value:.12g}') if isinstance(value, float) else value}")
        return texts


def run_search(directory: Path, config: DictConfig, arguments: Sequence[str], launch: Launch) -> None:
    """Run the jobs of a search that are missing or not done.

    Args:
        directory: That of the sweep.
        config: The configuration of Hydra.
        arguments: Overrides as they were typed.
        launch: Runs jobs, the first of them with the number given, and returns what Hydra says of each.

    Raises:
        ConfigError: there is nothing to search.
    """
    from lora_sam.runs.sweep import plan_jobs

    search, options = Search(directory, config, arguments), config.hydra.sweeper
    known = search.jobs()
    plan_jobs(directory, known)
    for part in _in_parts(known, options.batch_size):  # what is done returns at once, if it is what it was
        _run(search, part, launch)
        _note_sets(directory, part)
    while (left := options.n_trials - len(known)) > 0:
        asked = search.ask(min(left, options.batch_size))
        known |= asked
        plan_jobs(directory, asked)
        _run(search, asked, launch)
        _note_sets(directory, asked)


def _note_sets(directory: Path, jobs: Collection[int]) -> None:
    """Say early in a search that it compares what cannot be compared."""
    from lora_sam.core.console import note
    from lora_sam.runs.sweep import collect

    if min(jobs) < _FIRST and len(collect(directory, "running").validation_sets) > 1:
        note(
            "these jobs validate on different images or prompts, and the search takes the easier ones for the better "
            "settings; search with one set of data and one kind of prompts"
        )


def _run(search: Search, jobs: dict[int, list[str]], launch: Launch) -> None:
    from optuna.trial import TrialState

    results = launch(list(jobs.values()), min(jobs))
    errors = []
    for number, result in zip(jobs, results, strict=True):
        try:
            value = float(result.return_value)
        except Exception as error:
            errors.append(error)
            value = math.nan
        status = read_status(Path(result.hydra_cfg.hydra.runtime.output_dir))
        state = TrialState.FAIL if math.isnan(value) else TrialState.COMPLETE
        if state == TrialState.COMPLETE and status is not None and status.status == "pruned":
            state = TrialState.PRUNED
        search.tell(number, state, value)
    if errors:
        raise errors[0]


def _in_parts(jobs: dict[int, list[str]], most: int) -> Iterator[dict[int, list[str]]]:
    """At most so many with numbers that follow each other, as launchers count them."""
    part: dict[int, list[str]] = {}
    for number, texts in jobs.items():
        if part and (len(part) == most or number != max(part) + 1):
            yield part
            part = {}
        part[number] = texts
    if part:
        yield part
