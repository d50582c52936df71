"""The About tab: how it works, what the answer means, what it must not be used for, what happens to pictures."""

import gradio as gr

from fer_hf.demo.shelf import Shelf

TEXT = """
## What the answer means
The model gives the expression that people would *perceive* in a face: it learned from photos that ten people each had
labelled by looking. An expression is not a feeling. People smile when they are sad, frown when they concentrate, and
differ by person and culture in what they show.

## How it works
1. The picture is decoded, turned upright and checked against limits.
2. MTCNN finds the faces and five points on each: eyes, nose, corners of the mouth.
3. Each face is turned and scaled so that these points lie where they lay in the training pictures.
4. A small neural network gives a probability for each expression. They are calibrated: of the answers given with 70 %,
   about 70 % should be right on pictures like those it was measured on.
5. Grad-CAM shows which parts of the face spoke for an expression; gates and maps of the network can be shown too.

## What it must not be used for
Not for decisions about people: no hiring, no grading, no monitoring at work or at school, no policing, no medical or
legal judgement. In the EU, systems that infer emotions at work and in education are prohibited (AI Act, Article 5).

## What happens to pictures
They are held in memory while they are looked at and dropped with the answer. No file is written for them, no log
holds them, no statistics are collected, and the page asks no other server for anything.

## Licences
The code is under the MIT licence. The example portraits are works of the US government (NASA, US Navy) and in the
public domain. HEIC pictures are read with libheif and x265, whose licences are LGPL and GPLv2.
"""


def build_about_tab(shelf: Shelf) -> gr.Markdown:
    """The tab's text, with what is loaded."""
    return gr.Markdown(TEXT, elem_classes="fer-prose")
