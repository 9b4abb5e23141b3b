"""The section that says how well each score found the blocks that helped most, in runs that recorded it."""

from __future__ import annotations

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.report.aggregate.benefit_history import benefit_sentences, recorded_benefit, score_cells
from fedtlu_fast.report.aggregate.score_quality import benefit_report
from fedtlu_fast.report.pages.content import Notes, Section, Sheet
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.results import ArmResult

TITLE = "Which scores find the blocks that help"


def block_benefit_section(run: ArmResult, layout: ParameterLayout, settings: RunSettings) -> Section:
    """Returns the section; it is empty, and a page leaves it out, if the run recorded no benefits."""
    found = recorded_benefit(run.selection, layout, settings)
    if found is None:
        return Section("benefit", TITLE, [])
    report = benefit_report([found])
    lead, *notes = benefit_sentences(report)
    title = "Each score against the gain of each block (see fedtlu history --benefit)"
    return Section("benefit", TITLE, [Sheet.of(title, score_cells(report)), Notes(notes)], lead)
